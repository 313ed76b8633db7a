"""Tables as other programs write them, in every format that is read."""

import csv
import json

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet


def write_csv(path, columns, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_tsv(path, columns):
    write_csv(path, columns, "\t")


def write_jsonl(path, columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="")


def write_json(path, columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_parquet(path, columns):
    pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=7)


def write_feather(path, columns):
    pyarrow.feather.write_feather(pa.table(columns), str(path), compression="lz4", chunksize=7)


def write_stream(path, columns):
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def write_saved(path, columns):
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns).save_to_disk(str(path))


WRITERS = {
    "a.csv": write_csv,
    "a.tsv": write_tsv,
    "a.jsonl": write_jsonl,
    "a.json": write_json,
    "a.parquet": write_parquet,
    "a.feather": write_feather,
    "a.arrow": write_stream,
    "saved": write_saved,
}
"""By the name of a file in such a format."""
