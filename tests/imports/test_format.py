"""Formats are told apart by content: each source is of one, and where several fit the user says which."""

import shutil
from dataclasses import replace

import pytest

from harness.errors import BadInput
from harness.imports import Asked, Given, choose_format, read_given
from harness.imports.autogluon import write
from harness.registry import FORMATS
from tests.imports.sources import (
    every_eval_ever,
    routellm,
    routerbench,
    simulation_artifact,
    write_lines,
    write_tabarena,
)  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory, lm_eval_run):
    """A file or folder of each format."""
    folder = tmp_path_factory.mktemp("sources")
    write(simulation_artifact(), folder / "autogluon")
    write_tabarena(folder / "tabarena", "tasks.dat")
    routerbench().to_csv(folder / "wide.csv", index=False)
    routellm().to_csv(folder / "bools.csv", index=False)
    write_lines(folder / "eee" / "x_samples.jsonl", every_eval_ever("m"))
    shutil.copytree(lm_eval_run.folder / "model_a", folder / "model_a")
    routerbench().rename(columns={"sample_id": "id"})[["id", "gpt-4", "gpt 3.5"]].to_csv(folder / "plain.csv")
    return {
        "autogluon": folder / "autogluon", "tabarena": folder / "tabarena", "routerbench": folder / "wide.csv",
        "routellm": folder / "bools.csv", "every_eval_ever": folder / "eee", "lm_eval": folder / "model_a",
        "plain": folder / "plain.csv",
    }  # fmt: skip


def test_every_format_has_a_source_here(sources):
    assert set(sources) == set(FORMATS.all())


@pytest.mark.parametrize("name", FORMATS.all())
def test_a_source_is_of_one_format_whatever_it_is_called(sources, tmp_path, name):
    assert [form.name for form in FORMATS if form.recognises(sources[name])] == [name]
    copy = tmp_path / f"other{sources[name].suffix}"
    (shutil.copytree if sources[name].is_dir() else shutil.copy)(sources[name], copy)
    assert choose_format([Given(copy)], None).name == name


def test_where_several_formats_fit_the_user_says_which(sources, monkeypatch):
    greedy = replace(FORMATS.get("plain"), name="greedy", recognises=lambda path: True)
    monkeypatch.setattr(FORMATS, "_known", FORMATS.all() | {"greedy": greedy})
    given = [Given(sources["routellm"])]
    with pytest.raises(BadInput, match=r"several formats fit \(known: greedy, routellm\); name one with --format"):
        choose_format(given, None)
    assert choose_format(given, "routellm").name == "routellm"


@pytest.mark.parametrize("name", sorted(set(FORMATS.all()) - {"plain"}))
def test_what_a_format_does_not_go_by_is_refused_and_not_passed_over(sources, name):
    form = FORMATS.get(name)
    said = {"metric": Asked(metric="m"), "tasks": Asked(tasks=("t",)), "threshold": Asked(threshold=0.5)}
    for option, asked in {**said, "member": Asked()}.items():
        given = [Given(sources[name], "somebody" if option == "member" else None)]
        if option not in form.takes:
            with pytest.raises(BadInput, match="nothing in this format goes by"):
                read_given(given, form, asked)


@pytest.mark.parametrize("name", ["routerbench", "routellm", "every_eval_ever"])
def test_probabilities_are_not_made_up(sources, name):
    with pytest.raises(BadInput, match="the source has no probabilities"):
        read_given([Given(sources[name])], FORMATS.get(name), Asked(form="probabilities"))
