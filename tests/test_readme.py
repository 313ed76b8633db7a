"""The README and its pages say what the committed runs measured, and show what works."""

import re

import pytest

from harness.cli.main import main
from harness.gate.policy import read_policy
from harness.lm.combination_file import CombinationFile
from harness.registry import METHODS
from harness.strict import yaml
from harness.strict.model import read_model
from tests.readme import PAGES, ROOT, shown, updated
from tests.test_readme_examples import OWN

TEXTS = {page: path.read_text(encoding="utf-8") for page, path in PAGES.items()}
README = TEXTS["README.md"]
FILES = shown("yaml")


def printed(capsys, *arguments):
    """What a command says on stdout."""
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0
    return capsys.readouterr().out


# Numbers


@pytest.mark.parametrize("page", PAGES)
def test_every_number_is_that_of_the_committed_results(page):
    assert updated(page, TEXTS[page]) == TEXTS[page], "run python -m tests.readme"


ALL_RUNS = re.search(r"took (\d+ min \d+ s on two cores)", TEXTS["README.md"])[1]


@pytest.mark.parametrize(
    ("page", "word", "other"),
    [
        ("README.md", ALL_RUNS, "59 min 59 s on two cores"),
        ("README.md", ALL_RUNS, ALL_RUNS.replace("two", "three")),
        ("README.md", "At the cost of one model: the student", "At the cost of one model: the linear ensemble"),
        ("README.md", "(Pearson 0.95", "(Pearson 0.94"),
        ("README.md", "variants, 4.5 %", "variants, 4.4 %"),
        ("README.md", "100 % of subsets", "99 % of subsets"),
        ("runs", "94.67 %", "94.68 %"),
        ("runs", "| not held |", "| held |"),
        ("runs", "| better | unclear |", "| better | better |"),
        ("runs", "8.00×", "7.00×"),
        ("runs", "too low", "too high"),
        ("runs", "for 5 seeds.", "for 4 seeds."),
        ("smollm2", "| 1.018 |", "| 1.017 |"),
        ("smollm2", "for 14 of", "for 15 of"),
        ("speed", ">= 3.5", ">= 3.4"),
        ("changelog", "TIES 2.7 times", "TIES 2.8 times"),
        ("changelog", "1.09 times", "1.08 times"),
    ],
)
def test_a_number_that_is_not_is_noticed(page, word, other):
    assert word in TEXTS[page]
    changed = TEXTS[page].replace(word, other, 1)
    try:
        assert updated(page, changed) != changed
    except ValueError as missing:
        assert "has no words" in str(missing)


@pytest.mark.parametrize("page", PAGES)
def test_every_table_names_the_run_that_fills_it(page):
    tables = re.findall(r"^(.*)\n\|.*\n\|[-:| ]+\n", TEXTS[page], flags=re.MULTILINE)
    assert all(re.fullmatch(r"<!-- from \w+: \w+ -->", line) for line in tables)
    assert bool(tables) == (page in ("runs", "own", "smollm2", "speed"))  # the README leaves them to commands and pages


@pytest.mark.parametrize(
    ("page", "link"),
    [(page, link) for page, text in TEXTS.items() for link in sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", text)))],
)
def test_links_lead_somewhere(page, link):
    assert (PAGES[page].parent / link).exists()


# What it shows


def test_the_readme_is_short():
    assert len(README.split()) < 2500


def test_every_method_is_in_the_list_that_the_readme_points_to(capsys):
    assert "`stockpot ls methods`" in README
    out = f"\n{printed(capsys, 'ls', 'methods')}"
    for name, method in METHODS.all().items():
        assert f"\n{name}  ({method.family})\n    {method.summary}\n    {method.paper}\n" in out


def test_commands_that_are_shown_exist_and_none_is_left_out(capsys):
    known = set(re.findall(r"^  ([a-z-]+)  ", printed(capsys, "--help").split("Commands:")[1], flags=re.MULTILINE))
    shown = set(re.findall(r"(?:`|^)stockpot ([a-z][a-z-]*)", README, flags=re.MULTILINE))
    assert shown <= known
    assert known <= shown | set(re.findall(r"`([a-z-]+)(?: [a-z]+)?`", README))
    for group, verb in re.findall(r"stockpot (ls|cache|baseline) ([a-z]+)", README):
        assert f"\n  {verb} " in printed(capsys, group, "--help")


def test_the_quick_start_is_quick_first_and_its_targets_exist():
    start = README.split("## Quick start")[1].split("\n```\n")[1]
    assert start.index("suites/smoke.yaml") < start.index("make bench")
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    targets = re.findall(r"^make (\S+)", start, flags=re.MULTILINE)
    assert len(targets) == 2
    assert all(f"\n{target}:" in makefile for target in targets)


@pytest.mark.parametrize("name", ["mine.yaml", "experts.yaml"])
def test_suites_that_are_shown_are_valid(name, tmp_path, capsys):
    (tmp_path / name).write_text(FILES[name])
    (tmp_path / "suites").symlink_to(ROOT / "suites")
    variants = printed(capsys, "validate", str(tmp_path / name)).split()
    assert {"best_single", "linear/weights=learned", "uniform_soup"} <= set(variants)


def test_the_policy_and_the_combination_that_are_shown_are_valid(tmp_path):
    for name in ("release.policy.yaml", "combination.yaml"):
        (tmp_path / name).write_text(FILES[name])
    assert [rule.id for rule in read_policy(tmp_path / "release.policy.yaml").file.rules] == [
        "no-drop", "soup-vs-ensemble", "gain", "latency",
    ]  # fmt: skip
    document = yaml.read(tmp_path / "combination.yaml")
    assert read_model(CombinationFile, document, "a combination file").method == {"linear": {"weights": [0.5, 0.5]}}


def test_no_file_that_is_shown_is_left_untested():
    assert set(FILES) == {"mine.yaml", "experts.yaml", "release.policy.yaml", "combination.yaml", "merge.yml", *OWN}
    assert README.count("```yaml") == len(FILES)
