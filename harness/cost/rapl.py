"""The energy counters of processors (RAPL), where the kernel shows them and lets this user read them."""

from __future__ import annotations

from pathlib import Path

from harness.cost.meters import Meter, Reading, Unavailable

POWERCAP = Path("/sys/class/powercap")


class PackageEnergy(Meter):
    """Joules of all processor packages and their memory, whatever ran on them. Source: Linux, power/powercap.

    A counter that has wrapped once is corrected, so a window may last as long as a range does: minutes.
    """

    unit = "J"

    def __init__(self, root: Path = POWERCAP) -> None:
        self.root = root

    def _begin(self) -> None:
        self.zones = _zones(self.root)
        self.before = {zone: _microjoules(zone / "energy_uj") for zone in self.zones}

    def _end(self) -> Reading:
        total = 0
        for zone, before in self.before.items():
            spent = _microjoules(zone / "energy_uj") - before
            total += spent if spent >= 0 else spent + _microjoules(zone / "max_energy_range_uj")
        return Reading(total / 1e6, self.unit, "rapl", f"all of {', '.join(self.zones.values())}")


def _zones(root: Path) -> dict[Path, str]:
    """The zones to add up, with their names: packages and memory.

    Cores and graphics are parts of a package, and a platform ("psys") has packages among it.
    """
    names = {path.parent: path.read_text().strip() for path in sorted(root.glob("intel-rapl:*/name"))}
    zones = {zone: name for zone, name in names.items() if name.startswith(("package", "dram"))}
    if not zones:
        raise Unavailable(f"no processor energy counters in {root}")
    return zones


def _microjoules(path: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError:
        raise Unavailable(f"no permission to read {path}") from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot read {path}: {error}") from None
