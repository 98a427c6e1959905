"""Energy of this machine's processors, from the counters that Intel and AMD give through Linux (RAPL).

Linux shows them as files in /sys/class/powercap; since 2020 only root may read them unless an administrator
lets others (`chmod a+r`), since they leak what runs. https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Rapl:
    """The counters of all processor packages, whole ones: what other programs use is in them."""

    def __init__(self, zones: list[Path]) -> None:
        """`zones` are the folders of the packages. Raises OSError where one cannot be read."""
        self._zones = {zone: _number(zone / "energy_uj") for zone in zones}
        self._ranges = {zone: _number(zone / "max_energy_range_uj") for zone in zones}
        self._total_uj = 0

    def joules(self) -> float | None:
        """Energy since this was opened; None where a counter could not be read just now.

        A counter begins anew at the end of its range, every few minutes under load: it has to be asked
        oftener than that.
        """
        try:
            now = {zone: _number(zone / "energy_uj") for zone in self._zones}
        except (OSError, ValueError):
            return None
        for zone, value in now.items():
            rise = value - self._zones[zone]
            self._total_uj += rise if rise >= 0 else rise + self._ranges[zone]
        self._zones = now
        return self._total_uj / 1e6


def open_rapl(root: Path = POWERCAP) -> tuple[Rapl | None, str]:
    """The counters, or why there are none."""
    zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _is_package(zone)]
    if not zones:
        return None, f"this machine shows no energy counters of its processors (RAPL, {root})"
    try:
        return Rapl(zones), ""
    except PermissionError:
        return None, f"the energy counters of the processors ({zones[0]}/energy_uj) are for root alone"
    except (OSError, ValueError) as error:
        return None, f"the energy counters of the processors cannot be read: {error}"


def _is_package(zone: Path) -> bool:
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _number(file: Path) -> int:
    return int(file.read_text())
