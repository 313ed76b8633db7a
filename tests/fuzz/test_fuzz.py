"""Whatever becomes of a file that is read, it is taken or refused in a line: no traceback, no hang, no gigabytes.

A few inputs of each sort, the same at every call; `python -m tests.fuzz` reads thousands.
"""

import io
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from harness.errors import BadInput
from harness.models.prediction_file import read_predictions
from harness.strict.sizes import FREE, RATIO
from harness.strict.table import read_table
from harness.tasks.arrow_tables import ArrowFile, SavedDataset
from tests.fuzz.fuzzing import fuzz
from tests.fuzz.sorts import SORTS
from tests.fuzz.watch import BYTES, SECONDS, watch
from tests.tasks.table_files import write_saved

COUNTS = {**dict.fromkeys(SORTS, 10), "shipped suite": 40, "policy": 40, "predictions": 40, "table": 20, "suite": 8,
          "import": 6, "report": 1, "kept run": 4, "task file": 5}  # fmt: skip


@pytest.mark.parametrize("sort", SORTS)
def test_every_damaged_input_is_taken_or_refused_in_a_line(sort, tmp_path):
    came = fuzz(sort, range(COUNTS[sort]), tmp_path)
    assert [(number, file, each.trace or each.words) for number, file, each in came.faults] == []
    assert len(came.readings) == COUNTS[sort]


def raising(error):
    raise error


@pytest.mark.parametrize(
    "read",
    [
        lambda: raising(KeyError("a")),
        lambda: raising(SystemExit(2)),
        lambda: raising(BadInput("")),
        lambda: raising(OSError("no number")),
        lambda: __import__("socket").create_connection(("127.0.0.1", 9)),
        lambda: bytes(BYTES + 2**28).count(b"x"),
        lambda: [None for _ in iter(int, 1)],
    ],
    ids=["traceback", "exit", "no words", "no place", "network", "gigabyte", "hang"],
)
def test_what_must_not_come_of_an_input_is_told_as_a_fault(read, monkeypatch):
    monkeypatch.setattr("tests.fuzz.watch.SECONDS", 0.3)
    reading = watch(read)
    assert reading.outcome == "fault"
    assert reading.words
    assert SECONDS == 2


def npy(shape, dtype="<f8", data=b""):
    said = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    said += b" " * (-(len(said) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(said)) + said + data


def bomb(path, declared):
    """An archive with a member that says it is larger than a table of numbers would be."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ids.npy", npy("(2,)", "<U1", b"a\0\0\0b\0\0\0"))
        archive.writestr("logits.npy", npy("(2, 2)", data=bytes(32)))
    raw = bytearray(content.getvalue())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", declared)  # what the directory says of the last member's size
    path.write_bytes(bytes(raw))


def test_an_archive_that_becomes_gigabytes_is_refused_by_what_it_says(tmp_path):
    bomb(tmp_path / "a.npz", 2**31)
    reading = watch(lambda: read_predictions(tmp_path / "a.npz"))
    assert (reading.outcome, reading.bytes < 2**27) == ("refused", True)
    assert f"would become {2**31 + 192:,}" in reading.words or "would become 2,147," in reading.words
    bomb(tmp_path / "b.npz", 160)
    assert watch(lambda: read_predictions(tmp_path / "b.npz")).outcome == "taken"


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(99999, 99999)", "(2**99,)", "(-1,)", "[" * 90])
def test_an_array_that_claims_more_than_its_file_holds_is_refused(shape, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("ids.npy", npy(shape))
        archive.writestr("logits.npy", npy(shape))
    assert watch(lambda: read_predictions(tmp_path / "a.npz")).outcome == "refused"


def test_a_table_of_equal_cells_by_the_billion_is_refused_before_it_is_read(tmp_path):
    rows = 2**18
    part = pa.table({"id": pa.array(np.zeros(rows)), "yes": pa.array(np.zeros(rows))})
    with pyarrow.parquet.ParquetWriter(tmp_path / "a.parquet", part.schema) as writer:
        for _ in range(2 + FREE // (rows * 16)):
            writer.write_table(part)
    assert (tmp_path / "a.parquet").stat().st_size * RATIO < FREE
    reading = watch(lambda: read_table(tmp_path / "a.parquet"))
    assert (reading.outcome, reading.bytes < 2**27) == ("refused", True)
    assert "would become" in reading.words


@pytest.mark.parametrize("name", ["a.feather", "a.arrow", "saved"])
def test_a_compressed_arrow_table_is_refused_before_it_is_unpacked(name, tmp_path):
    """Half a gigabyte of zeros in one batch of 17 kB."""
    table, place = pa.table({"label": np.zeros(2**26, dtype=np.int64)}), tmp_path / name
    if name == "saved":
        write_saved(place, {"label": [0, 1]})
        (place,) = (tmp_path / name).glob("*.arrow")
    make = pa.ipc.new_file if name == "a.feather" else pa.ipc.new_stream
    with make(str(place), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    assert place.stat().st_size * RATIO < FREE
    read = SavedDataset if name == "saved" else ArrowFile
    reading = watch(lambda: next(read(tmp_path / name).rows(["label"])))
    assert (reading.outcome, reading.bytes < 2**27) == ("refused", True)
    assert f"would become {2**29:,}" in reading.words


def test_the_inputs_are_the_same_at_every_call(tmp_path):
    first, second = (fuzz("policy", range(20), tmp_path / name) for name in ("one", "two"))
    assert [each.words for each in first.readings] == [each.words.replace("/two/", "/one/") for each in second.readings]
    assert {each.outcome for each in first.readings} == {"taken", "refused"}
