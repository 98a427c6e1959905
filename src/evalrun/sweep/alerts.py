"""Alerts at the end of a sweep: checked, recorded as an event, posted. None of it can fail the sweep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalrun.spans import within_hours
from evalrun.suite.load import LoadedSuite
from evalrun.suite.schema import Suite
from evalrun.sweep.prepare import PreparedSweep
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.gates.alerts import AlertResult

ALERT = "alert"
"""The action of the event that says what fired and whether it was posted."""


def stored_text(loaded: LoadedSuite) -> str:
    """The suite's text as it is stored: without the webhook's address, should it stand there."""
    alerts = loaded.suite.alerts
    if alerts is None or alerts.webhook is None:
        return loaded.text
    return loaded.text.replace(alerts.webhook, "[not stored]")


def check(
    prepared: PreparedSweep, folder: SweepFolder, planned: Sequence[Mapping[str, Any]], store: Store
) -> list[AlertResult]:
    """The suite's alerts on what the sweep has found; nothing where it has none."""
    if not prepared.alerts:
        return []
    from evalrun.gates.alerts import check_alerts

    return check_alerts(prepared.alerts, folder, planned, store)


def tell(suite: Suite, folder: SweepFolder, alerts: Sequence[AlertResult], store: Store) -> list[str]:
    """Record the alerts that fired, and post them where the suite says so. Returns warnings.

    Alerts of a suite over production traffic have a state, as those of a probe: one message an episode.
    """
    fired = [alert for alert in alerts if alert.fired]
    if suite.alerts is None:
        return []
    if any(dataset.traffic is not None for dataset in suite.datasets):
        from evalrun.gates import alarms

        told = [
            alarms.Alarm(each.alert, each.run, each.fired, each.reason) for each in alerts if each.checked
        ]
        return list(alarms.tell(store, suite.project, told, suite.alerts, time.time())[1])
    if not fired:
        return []
    trouble = ""
    if suite.alerts.quiet_hours is not None and within_hours(suite.alerts.quiet_hours, time.time()):
        trouble = "not posted: quiet hours" if suite.alerts.webhook is not None else ""
    elif suite.alerts.webhook is not None:
        from evalrun.gates.alerts import message, post

        document = message(suite.name, folder.ulid, fired)
        trouble = post(suite.alerts.webhook, document, private_network=suite.alerts.private_network)
    said = "none" if suite.alerts.webhook is None else trouble or "posted"
    detail = {"alerts": [f"{each.alert} ({each.run})" for each in fired], "webhook": said}
    folder.append_event(ALERT, detail)
    return [f"alerts: {trouble}"] if trouble else []
