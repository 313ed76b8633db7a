"""The report of a small real run, and its sentences and claims on planted outcomes."""

import base64
import hashlib
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from harness.display import formats
from harness.errors import BadInput
from harness.report import document, write_report
from harness.report.answer import answer
from harness.report.evidence import Evidence
from harness.report.plots.curves import barrier, barrier_caption
from harness.report.students import students_of
from harness.results.columns import numbers
from harness.results.curves import CURVES_FIELDS
from harness.results.manifest import MANIFEST, write_manifest
from harness.results.run import Run, read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: tiny
question: Is <script>alert("x")</script> & | `safe`, [too](http://example.org)?
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 2, members: 3, epochs: 1, vary: {lr: [1e-3, 3e-3]},
          options: {hidden: 12}}
seeds: [0, 1]
methods:
  - best_single
  - member: {index: [0, 1, 2]}
  - linear: {weights: [uniform, learned]}
  - log_linear
  - mc_dropout: {passes: 4}
  - uniform_soup
  - task_arithmetic
  - task_arithmetic: {scale: 1e38}
  - distill: {alpha: [0.9, 0.0], epochs: 1}
  - checkpoint_average
correlate: {pools: [main], subsets: {sizes: [2], at_most: 3}}
cost: {latency: false, memory: false}
"""
FAILED, INAPPLICABLE = "task_arithmetic/scale=1e+38", "checkpoint_average"
RENDERED = ("report.html", "report.md", "claims.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with its report."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "suite.yaml").write_text(SUITE)
    suite = read_suite(folder / "suite.yaml")
    found = runner.run(make_plan(suite, Options(out=folder / "results", workers=2)), Tracker())
    write_report(found)
    return read_run(found)


def copied(run, folder, *without):
    """The run's folder again, with nothing that was rendered; without some of its tables, and then a summary."""
    rendered = (*RENDERED, "figures", *without, *([MANIFEST] if without else []))
    shutil.copytree(run.folder, folder / "copy", ignore=lambda _, names: [n for n in names if n in rendered])
    return folder / "copy"


class Page(HTMLParser):
    """What the tests ask of a page: its tags, the text of some, and the cells of each table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.text, self.tables = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "input", "img", "source", "rect", "polygon"):
            self.inside.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append({**dict(attributes), "text": ""})

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if not self.inside:
            return
        self.text.setdefault(self.inside[-1], []).append(data)
        if "td" in self.inside or "th" in self.inside:
            self.tables[-1][-1][-1]["text"] += data


def rows_of(table):
    """The rows of a table that are about a variant: not its head, nor the headings of groups."""
    return [row for row in table[1:] if len(row) > 1]


def table_of(page, heading):
    """The one table of a page that has this heading."""
    (found,) = [table for table in page.tables if heading in [cell["text"] for cell in table[0]]]
    return found


@pytest.fixture(scope="module")
def page(run):
    return Page((run.folder / "report.html").read_text())


@pytest.fixture(scope="module")
def markdown(run):
    return (run.folder / "report.md").read_text()


def cells(line):
    """The cells of one row of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables(markdown):
    """The tables of a Markdown text, each a list of rows of cells."""
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE)
    return [[cells(line) for line in block.splitlines()] for block in blocks]


def summary_rows(run):
    rows = run.variants[run.variants["seed"] == "all"]
    return rows[rows["status"] == "ok"].set_index("variant"), rows[rows["status"] != "ok"].set_index("variant")


# A real run.


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    folder = copied(run, tmp_path)
    assert write_report(folder) == folder / "report.html"
    names = [*RENDERED, *(f"figures/{path.name}" for path in (run.folder / "figures").iterdir())]
    assert len(names) >= len(RENDERED) + 6
    for name in names:
        assert (folder / name).read_bytes() == (run.folder / name).read_bytes(), name


def test_earlier_runs_are_a_section_of_the_report_and_later_ones_change_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(document, "figures", lambda evidence: ())
    def beside(name, started, **record):
        folder = copied(run, tmp_path / "copies").rename(tmp_path / f"run-{started[:10]}")
        (folder / "run.json").write_text(json.dumps({**run.record, "started": started, "run_id": name, **record}))
        write_manifest(folder)
        return folder

    this = beside("this", "2026-01-02T00:00:00+00:00")
    alone = write_report(this).read_text()
    assert ">History<" not in alone
    beside("a<b>|", "2026-01-01T00:00:00+00:00", limit=5)
    page, text = write_report(this).read_text(), (this / "report.md").read_text()
    (table,) = [table for table in Page(page).tables if table[0][0]["text"] == "run"]
    assert [row[0]["text"] for row in table] == ["run", "a<b>|", "this"]
    ok, _ = summary_rows(run)
    assert formats.percent(ok.loc["best_single", "accuracy"]) in table[1][1]["text"]
    best = ok[ok["family"] == "output"]["accuracy"].max()
    assert formats.percent(best) in table[2][[cell["text"] for cell in table[0]].index("output")]["text"]
    assert [row[-1]["text"] for row in table[1:]] == ["limited to 5 examples; incomplete", "incomplete"]
    assert "| a&lt;b&gt;\\| |" in text
    beside("later", "2026-01-03T00:00:00+00:00")
    assert write_report(this).read_text() == page
    assert (this / "report.md").read_text() == text


def test_the_page_needs_nothing_from_outside(run, page):
    text = (run.folder / "report.html").read_text()
    sources = [a[key] for _, a in page.tags for key in ("src", "href", "action", "data", "poster") if key in a]
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\(", text)
    assert text.count("http") == text.count("http-equiv") + text.count("http://example.org")  # the suite's own words
    assert not [name for _, a in page.tags for name in a if name.startswith("on") or name == "style"]


def test_the_policy_lets_its_own_script_and_style_run_and_nothing_else(page):
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    directives = dict(part.split(maxsplit=1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    for tag in ("script", "style"):
        (text,) = ["".join(page.text[tag])]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert len(text) > 100
        assert directives[f"{tag}-src"] == f"'sha256-{digest}'"
        assert [t for t, _ in page.tags].count(tag) == 1


def test_what_a_suite_says_is_text_and_never_markup(run, page, markdown):
    assert "".join(page.text["h1"]) == read_run(run.folder).record["suite"]["question"]
    text = (run.folder / "report.html").read_text()
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; | `safe`" in text
    assert "<script>alert" not in text
    heading = markdown.splitlines()[0]
    assert heading.startswith("# Is &lt;script&gt;")
    assert "\\| \\`safe\\`, \\[too\\]" in heading
    assert "<script" not in markdown


def test_every_number_of_the_page_is_that_of_the_table(run, page):
    ok, _ = summary_rows(run)
    head, rows = page.tables[0][0], rows_of(page.tables[0])
    column = {cell["text"]: i for i, cell in enumerate(head)}
    assert sorted(row[column["variant"]]["text"] for row in rows) == sorted(ok.index)
    reference = ok.loc["best_single", "flops_per_example"]
    for row in rows:
        expected = ok.loc[row[column["variant"]]["text"]]
        for name, key in (("accuracy", "accuracy"), ("NLL", "nll"), ("ECE", "ece"), ("build", "build_seconds"),
                          ("difference, points", "diff_vs_reference")):  # fmt: skip
            assert float(row[column[name]]["data-value"]) == expected[key], name
        assert float(row[column["FLOPs"]]["data-value"]) == expected["flops_per_example"] / reference
        low, high = (f"{100 * expected[f'accuracy_{end}']:.2f} %" for end in ("low", "high"))
        assert row[column["accuracy"]]["title"] == f"{low} to {high}"
        assert row[column["accuracy"]]["text"] == f"{100 * expected['accuracy']:.2f} %"
        assert row[column["NLL"]]["text"] == f"{expected['nll']:.3f}"
        assert row[column["verdict"]]["text"] == expected["verdict"]
        if expected["verdict"] != "reference":
            assert row[column["models like these"]]["text"] == expected["recipe_verdict"]
            assert row[column["verdict"]]["title"].startswith("accuracy ")
        assert row[column["latency"]]["text"] == row[column["memory"]]["text"] == "–"  # not asked for
        assert row[column["memory"]]["title"] == "unavailable: the suite does not ask for it"
        assert (row[column["●"]]["text"] == "●") == bool(expected["pareto"])


def test_variants_stand_in_groups_of_pool_and_family_and_in_each_by_the_score(run, page, markdown):
    ok, _ = summary_rows(run)
    groups = {}
    for row in page.tables[0][1:]:
        if len(row) == 1:
            names = groups.setdefault(row[0]["text"], [])
        else:
            names.append(row[1]["text"])
    assert next(iter(groups)) == "main: three fine-tunes · single models"
    for names in groups.values():
        assert ok.loc[names, ["pool", "family"]].drop_duplicates().shape[0] == 1
        assert names == sorted(names, key=lambda n: (-ok.loc[n, "accuracy"], ok.loc[n, "flops_per_example"], n))
    written = [row[0].strip("*`").replace("\\", "") for row in tables(markdown)[0][2:]]
    assert written == [name for title, names in groups.items() for name in (title, *names)]


def test_every_comparison_is_on_the_page(run, page):
    table = run.comparisons
    head, *rows = page.tables[1]
    assert [cell["text"] for cell in head] == ["variant", "accuracy, points", "Brier score", "NLL"]
    these = table[(table["seed"] == "all") & (table["scope"] == "these models") & (table["kind"] == "own pool")]
    verdicts = these.set_index(["variant", "metric"])["verdict"]
    assert {row[0]["text"] for row in rows} == set(these["variant"])
    for name, *cells in rows:
        for metric, cell in zip(("accuracy", "brier", "nll"), cells, strict=True):
            assert f" {verdicts[name['text'], metric]}" in cell["text"]


def test_every_score_and_cost_that_the_run_has_is_on_the_page(run, page):
    ok, _ = summary_rows(run)
    head, *rows = table_of(page, "aurc lower is better")
    shown = [cell["text"].split()[0] for cell in head[1:]]
    assert shown == [name for name in numbers() if ok[name].notna().any()]
    assert not {"latency_ms_p50", "working_memory_bytes"} & set(shown)  # not asked for
    assert [cell.get("title") for cell in head[1:]] == [numbers()[name].meaning for name in shown]
    for name, *cells in rows:
        expected = ok.loc[name["text"]]
        for column, cell in zip((numbers()[each] for each in shown), cells, strict=True):
            if np.isnan(expected[column.name]):
                assert cell["text"] == "–"
                continue
            if column.unit == "" and expected[column.name] < 1e4:
                assert cell["text"].split()[0] == f"{expected[column.name]:.3f}".replace("-", "−")
            if not column.bounds:
                assert "[" not in cell["text"]
            elif column.unit == "":
                low, high = (f"{expected[end]:.3f}".replace("-", "−") for end in column.bounds)
                assert cell["text"].endswith(f" [{low} .. {high}]")


def test_every_number_of_the_markdown_is_that_of_the_table(run, markdown):
    ok, _ = summary_rows(run)
    head, _, *rows = tables(markdown)[0]
    rows = [row for row in rows if row[1]]
    assert {row[0].strip("`") for row in rows} == set(ok.index)
    for row in rows:
        found = dict(zip(head, row, strict=True))
        expected = ok.loc[found["variant"].strip("`")]
        assert found["accuracy"] == f"{100 * expected['accuracy']:.2f} %"
        assert found["interval"] == f"{100 * expected['accuracy_low']:.2f} .. {100 * expected['accuracy_high']:.2f}"
        assert found["NLL"] == f"{expected['nll']:.3f}"
        assert found["ECE"] == f"{expected['ece']:.3f}"
        assert found["verdict"].split(" (")[0] == expected["verdict"]
        if expected["verdict"] == "reference":
            assert not found["difference"]
            continue
        difference = float(found["difference"].split()[0].replace("−", "-"))
        assert difference == pytest.approx(100 * expected["diff_vs_reference"], abs=0.00501)
        assert found["verdict"] == f"{expected['verdict']} ({expected['recipe_verdict']})"


def test_every_markdown_table_has_as_many_cells_in_each_row(markdown):
    found = tables(markdown)
    assert len(found) == 6
    for table in found:
        assert len({len(row) for row in table}) == 1
        assert all(re.fullmatch(r":?-+:?", cell) for cell in table[1])


def test_what_failed_and_what_does_not_apply_is_shown_with_its_reason(run, page, markdown):
    _, not_ok = summary_rows(run)
    assert dict(not_ok["status"]) == {FAILED: "failed", INAPPLICABLE: "not_applicable"}
    shown = {row[0]["text"]: [cell["text"] for cell in row[1:]] for row in table_of(page, "status")[1:]}
    assert shown == {
        FAILED: ["failed", not_ok.loc[FAILED, "reason"]],
        INAPPLICABLE: ["not applicable", not_ok.loc[INAPPLICABLE, "reason"]],
    }
    written = {row[0].strip("`"): row[1:] for row in tables(markdown)[5][2:]}
    assert {name: state for name, (state, _) in written.items()} == {n: s for n, (s, _) in shown.items()}
    for name, (_, reason) in written.items():
        assert re.sub(r"\\(.)", r"\1", reason) == not_ok.loc[name, "reason"]
    text = " ".join("".join(page.text["p"]).split())
    assert "Incomplete: 1 of" in text


def test_figures_are_drawn_and_the_same_in_both_reports(run, page, markdown):
    linked = re.findall(r"!\[(\w+)\]\((figures/\w+\.svg)\)", markdown)
    assert [name for name, _ in linked] == ["gain", "quality_cost", "correlation", "reliability", "sweeps", "dropout"]
    embedded = [a["src"] for tag, a in page.tags if tag == "img"]
    for (_, path), source in zip(linked, embedded, strict=True):
        svg = (run.folder / path).read_bytes()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert source == "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
        assert (run.folder / path).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    narrow = [a["srcset"] for tag, a in page.tags if tag == "source"]
    for name, source in zip(("gain", "quality_cost"), narrow, strict=True):
        svg = (run.folder / f"figures/{name}_narrow.svg").read_bytes()
        assert source == "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def test_what_quality_costs_is_in_curves_json_and_the_same_in_both_reports(run, page, markdown):
    found = run.curves
    assert found.keys() == CURVES_FIELDS.keys()
    rows = run.variants[run.variants["seed"] == "all"].set_index("variant")
    reference = rows.loc["best_single"]
    points = {point["name"]: point for family in found["families"] for point in family["points"]}
    assert {"member/index=0", "linear", "mc_dropout/passes=4", "uniform_soup", "task_arithmetic"} <= points.keys()
    assert not {"linear/weights=learned", FAILED, "best_single"} & points.keys()
    for name, point in points.items():
        assert point["score"] == pytest.approx(rows.loc[name, "accuracy"])
        assert point["cost"] == pytest.approx(rows.loc[name, "flops_per_example"] / reference["flops_per_example"])
        assert point["gain"]["value"] == pytest.approx(rows.loc[name, "accuracy"] - reference["accuracy"])
    families = {family["name"]: [f"{100 * family['aiq']['value']:.2f} %"] for family in found["families"]}
    on_page = table_of(page, "mean accuracy (AIQ)")
    for table in ([[cell["text"] for cell in row] for row in on_page], tables(markdown)[1]):
        column = table[0].index("mean accuracy (AIQ)")
        told = {row[0]: re.split(r" \\?\[", row[column])[:1] for row in table[1:] if row[0] in families}
        assert told == families
    ways = [way["words"] for way in found["equal_compute"]["ways"]]
    assert [row[0] for row in tables(markdown)[2][2:]] == ways
    assert [row[0]["text"] for row in table_of(page, "way to spend it")[1:]] == ways


def test_what_students_keep_is_the_same_in_both_reports(run, page, markdown):
    (expected,) = students_of(Evidence(run))
    assert [row["variant"] for row in expected["rows"]] == [
        "distill/epochs=1", "distill/alpha=0,epochs=1", "best_single", "uniform_soup",
    ]  # fmt: skip
    on_page = [[cell["text"] for cell in row] for row in table_of(page, "learns from")]
    (in_markdown,) = [table for table in tables(markdown) if "learns from" in table[0]]
    titles = [each for score in ("accuracy", "NLL") for each in (score, "gain kept", "over labels")]
    for table in (on_page, [in_markdown[0], *in_markdown[2:]]):
        assert table[0][5:] == titles
        for line, row in zip(table[1:], expected["rows"], strict=True):
            cells_of_row = [cell.replace("\\", "").strip("`") for cell in line]
            assert cells_of_row[:5] == [row[key] for key in ("variant", "size", "start", "targets", "flops")]
            assert cells_of_row[5:] == [cell for score in row["scores"] for cell in score]
    assert re.search(r"On the training examples the ensemble is right on [\d.]+ % and [\d.]+ % sure", markdown)


def test_the_claims_are_the_same_everywhere(run, page, markdown):
    stored = json.loads((run.folder / "claims.json").read_text())
    assert len({claim["claim"] for claim in stored}) == len(stored) == 21
    assert {claim["verdict"] for claim in stored} <= {"held", "not held", "undecided", "not tested"}
    for claim in stored:
        if claim["verdict"] == "not tested":
            assert claim["estimate"] is None
            assert claim["note"]
        else:
            assert claim["low"] <= claim["estimate"] <= claim["high"]
    rows = [[cell["text"] for cell in row] for row in table_of(page, "claim")[1:]]
    tested = [claim for claim in stored if claim["verdict"] != "not tested"]
    assert [row[:2] for row in rows] == [[claim["claim"], claim["verdict"]] for claim in tested]
    assert tested
    for claim in stored:
        if claim not in tested:
            assert claim["claim"] in markdown.partition("Not tested by this suite: ")[2]
    written = tables(markdown)[3][2:]
    assert [row[1:4] for row in written] == [row[1:4] for row in rows]


def test_the_first_sentence_is_the_same_everywhere_and_names_variants_of_the_run(run, markdown):
    ok, _ = summary_rows(run)
    told = answer(Evidence(run))
    names = [words for kind, words in told.pieces if kind == "code"]
    assert names
    assert set(names) <= set(ok.index)
    sentence = "".join(words for _, words in told.pieces)
    (shown,) = re.findall(r'<p class="answer">(.*?)</p>', (run.folder / "report.html").read_text())
    assert html.unescape(re.sub(r"</?(?:code|span)>", "", shown)) == sentence
    assert re.sub(r"\\(.)", r"\1", markdown.splitlines()[2]).replace("`", "").strip("*") == sentence


def test_without_per_example_results_there_is_an_answer_and_a_table_but_no_reliability(run, tmp_path):
    folder = copied(run, tmp_path, "examples.parquet")
    write_report(folder)
    text = (folder / "report.md").read_text()
    said, before = (told.splitlines()[2].split(". ") for told in (text, (run.folder / "report.md").read_text()))
    assert said[:-1] == before[:-1]
    assert said[-1] == "At up to four times the cost nothing is shown to gain more than that.**"
    assert "reliability" not in text
    assert {row[1] for row in tables(text)[3][2:]} <= {"not tested", "held", "not held", "undecided"}
    ok, _ = summary_rows(run)
    assert {row[0].strip("`") for row in tables(text)[0][2:] if row[1]} == set(ok.index)


def test_what_is_not_compared_together_is_said_to_be_alone(run, tmp_path):
    folder = copied(run, tmp_path, "comparisons.parquet")
    write_report(folder)
    text = (folder / "report.md").read_text()
    assert "no intervals that hold for the whole table" in text
    assert "hold for all" not in text


def test_a_run_in_which_everything_failed_has_a_report_too(run, tmp_path):
    folder = copied(run, tmp_path, "correlation.csv", "correlation.json", "examples.parquet", "details.json")
    (folder / "details.json").write_text("{}")
    table = pd.read_csv(folder / "variants.csv")
    kept = ("variant", "family", "method", "pool", "params", "members", "seed")
    table.loc[:, [c for c in table if c not in kept]] = np.nan
    table["status"], table["reason"], table["verdict"] = "failed", "a | pipe\nand <b>", "failed"
    table.to_csv(folder / "variants.csv", index=False)
    write_report(folder)
    text = (folder / "report.md").read_text()
    assert "There is no answer" in text
    assert "a \\| pipe and &lt;b&gt;" in text
    assert all(len({len(row) for row in found}) == 1 for found in tables(text))
    assert "This run has nothing to draw." in (folder / "report.html").read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no run\.json"):
        write_report(tmp_path)


# Planted outcomes.

FLOPS = {"single": 100.0, "output": 300.0, "weights": 100.0, "trained": 120.0}
SEEDS, EXAMPLES = 3, 600


def right(share, seed):
    """Random outcomes [seeds, examples], of which this share is right."""
    return np.random.default_rng(seed).random((SEEDS, EXAMPLES)) < share


def planted(outcomes, *, members=0, correlations=(), details=None, examples=True, reference="best_single", **changes):
    """Evidence with these outcomes; each is an array of right and wrong, or (family, array) or (family, array, nll)."""
    rows, tables = [], []
    for name, given in outcomes.items():
        family, correct, *nll = given if isinstance(given, tuple) else (family_of(name), given)
        correct = np.asarray(correct, bool)
        pool, _, short = name.rpartition(":")
        accuracy = correct.mean()
        row = {"variant": name, "family": family, "method": short.split("/")[0], "pool": pool or "main"}
        row |= {"seed": "all", "status": "ok", "flops_per_example": FLOPS[family]}
        row |= {"accuracy": accuracy, "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02}
        row |= {"diff_vs_reference": accuracy - np.mean(outcomes.get(reference, accuracy))}
        row |= {"verdict": "reference" if name == reference else "unclear"}
        rows.append(row | changes.get(name, {}))
        losses = nll[0] if nll else np.where(correct, 0.1, 2.0)
        for seed in range(SEEDS):
            columns = {"variant": name, "seed": seed, "label": 0, "confidence": 0.9}
            columns |= {"correct": correct[seed], "prediction": 1 - correct[seed], "nll": losses[seed]}
            tables.append(pd.DataFrame(columns))
    record = {"reference": {"variant": reference}, "seeds": list(range(SEEDS)), "task": {"name": "planted"}}
    record |= {"pools": {"main": {"members": members}}}
    run = Run(Path("nowhere"), record)
    vars(run).update(
        variants=pd.DataFrame(rows), examples=pd.concat(tables) if examples else None, correlations=list(correlations),
        details=details or {},
    )  # fmt: skip
    return Evidence(run)


def family_of(name):
    short = name.rpartition(":")[2]
    if short.startswith(("best_single", "member")):
        return "single"
    if short.startswith(("uniform_soup", "task_arithmetic", "align_average")):
        return "weights"
    return "trained" if short.startswith(("distill", "moe")) else "output"


BASE = right(0.7, 1)


# The barrier.


def aligned(*barriers):
    """The details of two members that were aligned, one (before, after) for each seed."""
    curves = {"between": ["m1", "m0"], "before": [{"a": 0.0, "nll": 0.5}, {"a": 1.0, "nll": 0.6}]}
    curves["after"] = curves["before"]
    return {
        str(seed): {"barrier": {"before": before, "after": after}, "interpolation": curves}
        for seed, (before, after) in enumerate(barriers)
    }


def test_the_caption_of_the_barrier_says_both():
    details = {"align_average": aligned((0.9123, 0.25), (0, 0)), "gone": aligned((0.4, 0.3))}
    evidence = planted({"best_single": BASE, "align_average": BASE}, details=details)
    assert "in nats: align_average 0.912 before and 0.250 after. First seed" in barrier_caption(evidence)
    (panel,) = barrier(evidence).axes
    assert [line.get_label() for line in panel.lines] == ["no barrier", "before alignment", "after alignment"]
    assert panel.lines[1].get_ydata().tolist() == [0.5, 0.6]
    assert barrier(planted({"best_single": BASE})) is None


# Numbers and names.


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (formats.percent, (0.9607,), "96.07 %"),
        (formats.percent, (1.0, 0), "100 %"),
        (formats.percent_interval, (0.9533, 0.9676), "95.33 .. 96.76"),
        (formats.points, (0.0037,), "+0.37"),
        (formats.points, (-0.0129,), "−1.29"),
        (formats.points_interval, (-0.0015, 0.0109), "−0.15 .. +1.09"),
        (formats.number, (0.12345,), "0.123"),
        (formats.number, (-1.5, 1), "−1.5"),
        (formats.ratio, (7.139,), "7.14×"),
        (formats.ratio, (0.2754,), "0.28×"),
        (formats.ratio, (30.04,), "30.0×"),
        (formats.amount, (999,), "999"),
        (formats.amount, (1236,), "1.24 k"),
        (formats.amount, (2.23e6,), "2.23 M"),
        (formats.amount, (4.5e9,), "4.50 G"),
        (formats.amount, (7e12,), "7.00 T"),
        (formats.megabytes, (327_680_000,), "328 MB"),
        (formats.seconds, (0.134,), "0.13 s"),
        (formats.seconds, (83.6,), "84 s"),
        (formats.inline_code, ("linear/weights=0.5:0.5",), "`linear/weights=0.5:0.5`"),
        (formats.inline_code, ("a`b|c\nd",), "`a'b\\|c d`"),
        (formats.plain_text, ("<b> & *x* [y]_z|`\\\n.",), "&lt;b&gt; &amp; \\*x\\* \\[y\\]\\_z\\|\\`\\\\ ."),
        (formats.plain_text, (3,), "3"),
    ],
)
def test_formats(function, arguments, words):
    assert function(*arguments) == words


@pytest.mark.parametrize("nothing", [None, float("nan"), np.float64("nan")], ids=str)
def test_what_is_missing_is_a_dash(nothing):
    one = (formats.percent, formats.points, formats.number, formats.ratio, formats.amount, formats.megabytes,
           formats.seconds)  # fmt: skip
    assert {function(nothing) for function in one} == {"–"}
    assert formats.percent_interval(nothing, nothing) == formats.points_interval(nothing, nothing) == ""
    assert formats.missing(nothing)
    assert not formats.missing(0.0)
    assert not formats.missing("nan")
