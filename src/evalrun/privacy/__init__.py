"""Personal data in evaluations: removed before it is stored, found where it lies, erased so that the trail
still verifies.

The door: `redactor(settings, store)` gives a function text -> text (also for rows and records).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalrun.privacy.redact import Redactor
    from evalrun.suite.privacy import PrivacySpec


def redactor(
    settings: PrivacySpec | Mapping[str, Any], store: Path | None, base_dir: Path = Path()
) -> Redactor:
    """What removes personal data as the `privacy` section of a suite says (or a mapping of its form).

    `store` is where the key for pseudonyms is kept (None: one for this process alone), `base_dir` where
    modules of the suite's own lie. Raises UserError for unknown entities, a recogniser that cannot be had or
    raises, and a damaged key.
    """
    from evalrun.privacy.build import build_redactor

    return build_redactor(settings, store, base_dir)
