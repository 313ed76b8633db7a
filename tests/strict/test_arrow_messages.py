"""What Arrow files and streams say that they become is what pyarrow makes of them, however they are compressed."""

import struct
from contextlib import suppress

import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.strict.arrow_messages import MALFORMED, unpacked_bytes

WORDS = [f"{number} words and some more" for number in range(1000)]
TABLES = {
    "numbers": pa.table({"a": pa.array(range(5000)), "b": pa.array([0.5, None] * 2500)}),
    "texts": pa.table({"a": pa.array(5 * WORDS), "b": pa.array(5 * WORDS, pa.large_string())}),
    "nested": pa.table({"a": pa.array([{"path": word, "bytes": word.encode() * 5} for word in WORDS])}),
}


def written(path, table, compression, **options):
    how = pa.ipc.IpcWriteOptions(compression=compression, **options)
    make = pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream
    with make(str(path), table.schema, options=how) as writer:
        writer.write_table(table, max_chunksize=700)
    return path


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("name", ["a.feather", "a.arrow"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_compressed_buffers_become_what_they_say(tmp_path, table, name, compression):
    for version in (pa.ipc.MetadataVersion.V4, pa.ipc.MetadataVersion.V5):
        found = unpacked_bytes(written(tmp_path / name, table, compression, metadata_version=version))
        assert table.nbytes <= found <= 1.1 * table.nbytes + 10_000


def test_dictionaries_and_values_without_bytes_are_counted(tmp_path):
    coded = pa.table({"a": pa.array(WORDS).dictionary_encode()})
    for name in ("a.feather", "a.arrow"):
        assert unpacked_bytes(written(tmp_path / name, coded, "zstd")) >= coded.nbytes
        many = pa.table({"a": pa.nulls(5000)})
        assert unpacked_bytes(written(tmp_path / name, many, None)) == 8 * 5000
    nested = pa.table({"a": pa.ListArray.from_arrays([0, 10**9], pa.nulls(10**9))})
    assert unpacked_bytes(written(tmp_path / name, nested, None)) == 8 * (1 + 10**9)


def test_feathers_own_writer_is_read(tmp_path):
    pyarrow.feather.write_feather(TABLES["texts"], str(tmp_path / "a.feather"))
    assert unpacked_bytes(tmp_path / "a.feather") >= TABLES["texts"].nbytes


def test_what_is_not_compressed_is_read_where_it_stands(tmp_path):
    values = 2 * TABLES["numbers"].num_rows
    assert unpacked_bytes(written(tmp_path / "a.arrow", TABLES["numbers"], None)) == 8 * values


def test_the_first_way_to_say_that_buffers_are_compressed_counts(tmp_path):
    """pyarrow still reads it, and no longer writes it."""
    size = 10**6
    content = struct.pack("<q", size) + pa.compress(bytes(size), codec="zstd", asbytes=True)
    batch = pa.record_batch({"a": pa.array(list(content), pa.uint8())})
    how = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), batch.schema, options=how) as writer:
        writer.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "zstd"})
    with pa.memory_map(str(tmp_path / "a.arrow")) as source:
        assert not any(pa.ipc.open_stream(source).read_all().column("a").to_pylist())  # those are the zeros
    assert unpacked_bytes(tmp_path / "a.arrow") == size


@settings(max_examples=200)
@given(st.data())
def test_damaged_files_are_malformed_or_say_something(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / data.draw(st.sampled_from(["damaged.feather", "damaged.arrow"]))
    content = bytearray(written(path, TABLES["numbers"].slice(0, 50), "zstd").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(*MALFORMED):
        assert unpacked_bytes(path) >= 0
