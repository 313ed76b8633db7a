"""Plans: a pretrained model is fetched when a run is planned, and is from then on a folder like any other."""

import pytest
import torch

from harness.models.pretrained import load_pretrained
from harness.pools.pool import load_pool
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.stages.prepare import Prepare
from harness.run.stages.score import Score
from harness.run.stages.setting import task_of
from harness.suite.suite import read_suite
from harness.tasks import pretrained, text
from tests.small_gguf import TEXT, trained_tokenizer, write_gguf
from tests.tasks.local_tasks import write_task

SUITE = """suite: tuned
task: {lm_eval: [t], include_path: tasks}
pool:
  train: {base: archive:smollm2, start: shared_base, members: 2, epochs: 1, examples: 8, vary: {lr: [1e-3, 1e-2]}}
methods: [best_single, uniform_soup]
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A tiny model where SmolLM2's folder would be, and one domain of text."""
    folder = tmp_path / "made"
    folder.mkdir()
    write_gguf(tmp_path / "tiny.gguf")
    pretrained.gguf.convert(tmp_path / "tiny.gguf", folder)
    monkeypatch.setattr(pretrained.Pretrained, "folder", lambda self: folder)
    monkeypatch.setattr(text, "DOMAINS", {"recipes": text.DOMAINS["python"]})
    monkeypatch.setattr(text, "split_of", lambda domain, split: (TEXT * 40,) * 8)
    monkeypatch.setattr(text, "WINDOWS", {"train": 12, "heldout": 3, "test": 2})
    write_task(tmp_path / "tasks" / "below", "t")
    (tmp_path / "suite.yaml").write_text(SUITE)
    yield folder
    task_of.cache_clear()


def planned(folder):
    suite = read_suite(folder / "suite.yaml")
    return make_plan(suite, Options(folder / "results", device="cpu"))


CHANGES = [("t.yaml", "{{q}}:", "Why {{q}}?"), ("t.jsonl", "question 3", "query 3")]


@pytest.mark.parametrize(("name", "old", "new"), CHANGES)
def test_a_task_that_asks_something_else_is_scored_anew_on_what_was_built(made, tmp_path, name, old, new):
    before, again = planned(tmp_path), planned(tmp_path)
    file = tmp_path / "tasks" / "below" / name
    file.write_text(file.read_text().replace(old, new))
    after = planned(tmp_path)
    assert before.task.digest == again.task.digest != after.task.digest
    plans = (before, again, after)
    for variant, same, other in zip(*(plan.variants[0].values() for plan in plans), strict=True):
        assert variant.build_key == same.build_key == other.build_key
        assert variant.evaluation_key == same.evaluation_key != other.evaluation_key
        scores = [Score(plan.setting, of).key() for plan, of in zip(plans, (variant, same, other), strict=True)]
        assert scores[0] == scores[1] != scores[2]


def test_fine_tunes_of_a_pretrained_model_start_from_it_in_its_tokens(made, tmp_path):
    plan = planned(tmp_path)
    pool = plan.pools[0]["main"]
    assert pool.base.folder == made
    tokens = plan.task.train.inputs[0].tolist()
    assert trained_tokenizer().decode(tokens) in TEXT * 40

    for member in pool.everyone:
        Prepare(plan.setting, member, "main", 0).run()
    loaded = load_pool(pool, plan.store)
    base = load_pretrained(made).state_dict()
    assert {member.start for member in loaded.members} == {loaded.base.digest}
    for run, member in zip(pool.members, loaded.members, strict=True):
        assert set(member.weights) == set(base) - {"lm_head.weight"}
        changes = [(member.weights[name] - base[name]).abs().max() for name in member.weights]
        assert 0 < float(torch.stack(changes).max()) < 2 * run.schedule.lr  # one step of Adam


def test_that_code_is_allowed_reaches_the_workers_and_makes_no_artefact_anew(made, tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    suite = read_suite(tmp_path / "suite.yaml")
    plans = [make_plan(suite, Options(tmp_path / "results", device="cpu", allow_code=allow)) for allow in (False, True)]
    assert [plan.setting.task.allow_code for plan in plans] == [False, True]
    assert [job.stage.setting for job in plans[1].jobs] == [plans[1].setting] * len(plans[1].jobs)
    assert [job.stage.artefacts() for job in plans[0].jobs] == [job.stage.artefacts() for job in plans[1].jobs]
