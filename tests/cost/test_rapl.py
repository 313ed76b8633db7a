"""Processor energy from a folder that looks like the kernel's."""

import pytest

from harness.cost.rapl import PackageEnergy


@pytest.fixture
def root(tmp_path):
    zones = {
        "intel-rapl:0": ("package-0", 1_000_000),
        "intel-rapl:0:0": ("core", 900_000),
        "intel-rapl:0:1": ("dram", 50_000),
        "intel-rapl:1": ("package-1", 9_999_000),
        "intel-rapl:2": ("psys", 77),
        "dtpm": ("package-9", 5),
    }
    for zone, (name, energy) in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("10000000\n")
        (tmp_path / zone / "energy_uj").write_text(f"{energy}\n")
    return tmp_path


def test_packages_and_memory_are_added_and_a_wrapped_counter_is_put_right(root):
    meter = PackageEnergy(root)
    meter.start()
    for zone, energy in (("0", 3_500_000), ("0:0", 3_000_000), ("0:1", 150_000), ("1", 1_000), ("2", 10**6)):
        (root / f"intel-rapl:{zone}" / "energy_uj").write_text(str(energy))
    found = meter.stop()
    assert found.value == pytest.approx(2.5 + 0.1 + 0.002)
    assert (found.unit, found.source) == ("J", "rapl")
    assert found.note == "all of package-0, dram, package-1"


def test_no_counters(tmp_path):
    meter = PackageEnergy(tmp_path / "nowhere")
    meter.start()
    found = meter.stop()
    assert (found.value, found.source) == (None, "unavailable")
    assert "no processor energy counters" in found.note


@pytest.mark.parametrize("at", ["start", "stop"])
@pytest.mark.parametrize("fault", ["no permission to read", "cannot read"])
def test_a_counter_that_cannot_be_read(root, monkeypatch, at, fault):
    meter = PackageEnergy(root)
    if at == "stop":
        meter.start()
    path = root / "intel-rapl:1" / "energy_uj"
    if fault == "cannot read":
        path.write_text("gone")
    else:  # root may read everything
        read = type(path).read_text

        def refused(self, *arguments, **options):
            if self == path:
                raise PermissionError(13, "denied", str(path))
            return read(self, *arguments, **options)

        monkeypatch.setattr(type(path), "read_text", refused)
    if at == "start":
        meter.start()
    found = meter.stop()
    assert found.value is None
    assert found.note.startswith(f"{fault} {path}")
