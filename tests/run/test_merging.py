"""Shards that are merged: the results are those of one run, byte for byte but for times, or a line says why not."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness import environment
from harness.errors import BadInput
from harness.keys import Key, file_digest
from harness.report.document import write_report
from harness.results.comparable import hardware_difference
from harness.results.manifest import check_manifest
from harness.results.run import read_run
from harness.results.shard import SHARD, Part, read_shard
from harness.run import merging, runner
from harness.run.merging import check_alike, merge
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.shards import divided, part_of
from harness.store import MANIFEST, Store, check_again, read_json, write_json
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: parts
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}
pools:
  mixed:
    train: {architecture: [mlp, small_cnn], start: independent, members: 2, epochs: 1, options: {}}
seeds: [0, 1]
methods:
  - best_single
  - linear: {weights: [uniform, learned]}
  - uniform_soup
  - ties: {scale: [1.0e+38]}
  - cascade: {members: [[0, 1]]}
  - uniform_soup: {pool: mixed}
correlate: {pools: [main, mixed], subsets: {sizes: [2], at_most: 3}}
cost: {latency: false, memory: false, energy: false}
"""
EXACT = ["examples.parquet", "comparisons.parquet", "correlation.csv", "correlation.json", "curves.json"]
TIMED = ["build_seconds", "members_train_seconds"]
COUNT = 3


def planned(suite: Path, out: Path, **options):
    return make_plan(read_suite(suite), Options(out=out, workers=1, **options))


def run_shard(suite: Path, out: Path, number: int, count: int = COUNT, **options):
    folder = runner.run(part_of(planned(suite, out, **options), Part(number, count)), Tracker())
    return read_shard(folder)


def merged(suite: Path, shards, out: Path, store: str | None = None):
    check_again()
    check_alike(shards)
    return read_run(merge(shards, read_suite(suite), out, Tracker(), workers=1, store=store))


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("merging") / "suite.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def whole(suite):
    run = read_run(runner.run(planned(suite, suite.parent / "whole"), Tracker()))
    write_report(run.folder)
    return run


@pytest.fixture(scope="module")
def separate(suite, whole):
    """Each shard in a store of its own."""
    return [run_shard(suite, suite.parent / f"own-{number}", number) for number in range(1, COUNT + 1)]


def copied(shards, folder: Path):
    """The shards elsewhere, each with its store."""
    copies = []
    for shard in shards:
        place = shutil.copytree(shard.store.parent, folder / shard.store.parent.name)
        copies.append(read_shard(place / "parts" / shard.folder.name))
    return copies


def same(found, whole):
    """Whether all that does not depend on time is equal in two runs, files byte for byte."""
    assert check_manifest(found.folder)
    for name in EXACT:
        assert (found.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    tables = [[pd.read_csv(run.folder / "variants.csv", dtype=str).drop(columns=TIMED).to_csv(),
               run.scores[~run.scores["metric"].isin(TIMED)].to_csv(),
               json.dumps(merging._without_times(run.details)),
               {key: value for key, value in merging._without_times(run.record).items()
                if key not in ("run_id", "started", "shards", "summary")}]
              for run in (found, whole)]  # fmt: skip
    assert tables[0] == tables[1]
    counts = [{key: value for key, value in run.record["summary"].items()
               if not key.endswith("seconds") and not key.startswith("jobs_")} for run in (found, whole)]  # fmt: skip
    assert counts[0] == counts[1]


def test_shards_with_stores_of_their_own_become_the_run_that_one_command_makes(suite, whole, separate, tmp_path):
    found = merged(suite, separate[::-1], tmp_path / "results")
    write_report(found.folder)
    same(found, whole)
    assert (found.folder / "claims.json").read_bytes() == (whole.folder / "claims.json").read_bytes()
    assert {"ok", "failed", "not_applicable"} == set(found.variants["status"])
    assert (tmp_path / "results" / "parts" / "latest").resolve() == found.folder.resolve()
    assert [shard["number"] for shard in found.record["shards"]] == [3, 2, 1]
    for artefact in read_json(found.folder / "artefacts.json"):  # all that the run needs is in its own store
        files = read_json(tmp_path / "results" / ".store" / artefact / MANIFEST)["files"]
        assert all(file_digest(tmp_path / "results" / ".store" / artefact / name) == sha for name, sha in files.items())
    again = runner.run(planned(suite, tmp_path / "results"), Tracker())  # and a run has nothing left but what failed
    started = {event["job"] for event in map(json.loads, (again / "log.jsonl").read_text().splitlines())}
    assert all("1e+38" in job for job in started)


def test_shards_that_share_a_store_make_nothing_twice_and_become_the_same_run(suite, whole, tmp_path):
    shards = [run_shard(suite, tmp_path, number, 4) for number in (4, 2, 1, 3)]
    events = [json.loads(line) for shard in shards for line in (shard.folder / "log.jsonl").read_text().splitlines()]
    done = [event["job"] for event in events if event["event"] == "done"]
    assert len(done) == len(set(done))
    same(merged(suite, shards, tmp_path), whole)


def test_machines_without_a_common_folder_make_nothing_twice_and_become_the_same_run(suite, whole, tmp_path):
    """Each has its own results folder, and they share a place; whoever merges has only the folders of the shards."""
    store, folders = f"file://{tmp_path}/place", []
    for number in (4, 2, 1, 3):
        shard = run_shard(suite, tmp_path / str(number), number, 4, store=store)
        events = [json.loads(line) for line in (shard.folder / "log.jsonl").read_text().splitlines()]
        folders.append((shutil.copytree(shard.folder, tmp_path / "folders" / shard.folder.name), events))
        shutil.rmtree(tmp_path / str(number))
        check_again()
    done = [event["job"] for _, events in folders for event in events if event["event"] == "done"]
    assert len(done) == len(set(done))
    shards = [read_shard(folder) for folder, _ in folders]
    with pytest.raises(BadInput, match=r"the store of shard 4/4 .* is not there"):
        merged(suite, shards, tmp_path / "merged")
    same(merged(suite, shards, tmp_path / "merged", store), whole)
    again = runner.run(planned(suite, tmp_path / "again", store=store, only="linear"), Tracker())
    assert (again / "log.jsonl").read_text() == ""


def test_what_a_shard_could_not_do_counts_until_it_was_run_again(suite, separate, tmp_path):
    """Of a shard that is named twice, what either made is there."""
    shards, job = copied(separate, tmp_path), "seed 0: build linear"
    plan = planned(suite, shards[0].store.parent)
    place, shard = next((place, shard) for place, shard in enumerate(shards) if job in divided(plan, COUNT)[place])
    Store(shard.store).remove(plan.variants[0]["linear"].evaluation_key)
    again = f"{place + 1}/{COUNT}"
    with pytest.raises(BadInput, match=rf"shard {again} .* lacks .*'{job}'; run it again with --shard {again}"):
        merged(suite, shards, tmp_path / "merged")
    errors = {**shard.record["errors"], job: "OSError: no room"}
    write_json(shard.folder / SHARD, {**shard.record, "errors": errors})
    failed = merged(suite, [read_shard(shard.folder) for shard in shards], tmp_path / "merged")
    row = failed.variants[(failed.variants["variant"] == "linear") & (failed.variants["seed"] == "all")].iloc[0]
    assert (row["status"], row["reason"]) == ("failed", "seed 0: OSError: no room")
    mended = merged(suite, [read_shard(shard.folder), *separate], tmp_path / "merged")
    assert set(mended.variants.loc[mended.variants["variant"] == "linear", "status"]) == {"ok"}


def test_shards_of_other_runs_are_refused_in_one_line(suite, separate, tmp_path):
    with pytest.raises(BadInput, match="of 3 shards these are missing: 1, 3; run each with --shard 1/3"):
        check_alike([separate[1], separate[1]])
    other = {"limit": 5, "only": "linear", "seed": 7, "seeds": [0], "device": "cuda", "task": "x", "plan": "x",
             "versions": {"torch": "1"}, "suite": {**separate[0].record["suite"], "digest": "x"}, "of": 4}  # fmt: skip
    assert set(other) == set(merging.ALIKE)
    for field, value in other.items():
        changed = type(separate[1])(separate[1].folder, {**separate[1].record, field: value})
        with pytest.raises(BadInput, match=r"^shard 1/3 .* are not of one run: they have other ") as refused:
            check_alike([separate[0], changed, separate[2]])
        assert merging.ALIKE[field] in refused.value.problem
    (tmp_path / "suite.yaml").write_text(SUITE.replace("epochs: 1,", "epochs: 2,"))
    with pytest.raises(BadInput, match="the suite file was changed since the shards were run"):
        merged(tmp_path / "suite.yaml", separate, tmp_path / "results")
    for shard in separate:
        shard.record["plan"] = "of another version of the code"
    with pytest.raises(BadInput, match="this code, its libraries or its data are other than the shards'"):
        merged(suite, separate, tmp_path / "results")
    for shard in separate:
        shard.record.update(read_shard(shard.folder).record)
    gone = [type(each)(each.folder, {**each.record, "store": "../gone"}) for each in separate]
    with pytest.raises(BadInput, match=r"the store of shard 1/3 .* is not there"):
        merged(suite, gone, tmp_path / "results")
    assert not list(tmp_path.glob("results/parts/*"))


def test_what_two_shards_made_has_to_be_the_same_but_for_times(suite, separate, tmp_path):
    copies = copied(separate, tmp_path)
    kept = [{folder.name: folder for folder in (shard.store / "predictions").glob("*/*")} for shard in copies]
    name = next(name for name in kept[0] if name in kept[1])
    ours, theirs = kept[0][name], kept[1][name]
    assert file_digest(ours / MANIFEST) != file_digest(theirs / MANIFEST)  # the seconds that it took
    assert merging.difference("predictions", ours, theirs) is None
    (file,) = theirs.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    manifest = read_json(theirs / MANIFEST)
    manifest["files"][file.name] = file_digest(file)
    write_json(theirs / MANIFEST, manifest)
    with pytest.raises(BadInput, match=f"two shards made the same 'predictions', and not alike: {file.name} differs"):
        merged(suite, copies, tmp_path / "merged")
    assert not list(tmp_path.glob("merged/parts/*"))


def test_damage_in_a_shards_store_is_missing_there(suite, separate, tmp_path):
    copies = copied(separate, tmp_path)
    plan = planned(suite, copies[2].store.parent)
    artefact = Store(copies[2].store).path(plan.variants[1]["uniform_soup"].build_key)
    assert artefact.is_dir()
    weights = next(artefact.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadInput, match=r"lacks what it was to make, or it was damaged: 'seed 1: build uniform_soup'"):
        merged(suite, copies, tmp_path / "merged")
    again = run_shard(suite, copies[2].store.parent, 3)
    assert again.record["jobs"]["run"] > 0
    assert merged(suite, [*copies, again], tmp_path / "merged").record["shards"][-1]["run_id"] == again.folder.name


def test_costs_of_machines_that_differ_are_each_its_own_and_no_gate_compares_them(tmp_path, page_faults, monkeypatch):
    path = tmp_path / "suite.yaml"
    path.write_text("""
suite: pages
task: digits
pool: {train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}}
seeds: [0, 1]
methods: [best_single, linear, log_linear, uniform_soup]
cost: {latency: false, memory: true, energy: false, page_faults: true}
""")
    shards = []
    for number in (1, 2, 3):
        monkeypatch.setattr(environment, "machine_digest", lambda number=number: f"machine {number}")
        shards.append(run_shard(path, tmp_path / "shared", number))
        shards[-1].record["machine"] = {**shards[-1].record["machine"], "cpu": f"machine {number}"}
    monkeypatch.setattr(environment, "machine_digest", lambda: "the machine that merges")
    found = merged(path, shards[::-1], tmp_path / "shared")
    measured = found.variants[found.variants["seed"] != "1"]  # on the first seed only
    assert measured[["minor_page_faults", "peak_memory_bytes"]].notna().all(axis=None)
    artefacts = Store(tmp_path / "shared" / ".store").artefacts()
    kept = {each["inputs"]["machine"] for _, each in artefacts if each["kind"] == "page_faults"}
    assert kept == {"machine 1", "machine 2"}
    assert [shard["machine"]["cpu"] for shard in found.record["shards"]] == ["machine 3", "machine 2", "machine 1"]
    assert any("machines that differ" in warning for warning in found.record["warnings"])
    assert "machines that differ" in hardware_difference(found, found)


def test_a_key_is_drawn_only_when_it_is_asked_for(tmp_path):
    keys = [Key.of("kind", code="harness.errors", seed=seed) for seed in range(3)]
    source, own = Store(tmp_path / "source"), Store(tmp_path / "own")
    for key in keys[:2]:
        with source.write(key) as folder:
            (folder / "deep").mkdir()
            write_json(folder / "deep" / "value.json", key.inputs)
    with own.drawing_from([source.root], lambda kind, ours, theirs: None):
        assert own.has(keys[0])
        assert not own.has(keys[2])
    assert own.has(keys[0])
    assert not own.has(keys[1])
    assert own.folders() == [own.path(keys[0])]
    for name in ("deep/value.json", MANIFEST):
        assert (own.path(keys[0]) / name).read_bytes() == (source.path(keys[0]) / name).read_bytes()
