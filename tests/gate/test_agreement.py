"""Banner, Markdown, JUnit and exit code say the same of every gate, since all come from gate.json."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from lxml import etree

from harness.gate.banner import SHOWN, WORDS, banner
from harness.gate.decide import decide
from harness.gate.junit import junit
from harness.gate.markdown import LIMIT, summary, write_summary
from harness.gate.record import EXIT_CODES, STATES, Check, Gate, outcome_of, read_gate, write_gate
from tests.examples import examples
from tests.gate.planted import TODAY, changed, planted, policy

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)

CHECKS = st.builds(
    Check, rule=ANY_TEXT, variant=ANY_TEXT, metric=ANY_TEXT, seed=st.sampled_from(["all", "0"]),
    state=st.sampled_from(STATES), reason=ANY_TEXT, value=st.none() | st.floats(-1e9, 1e9),
    p_inferior=st.none() | st.floats(0, 1), needed=st.none() | st.integers(1, 10**9),
)  # fmt: skip


@st.composite
def gates(draw):
    checks, problems = draw(st.lists(CHECKS, max_size=6)), draw(st.lists(ANY_TEXT, max_size=2))
    if not checks and not problems:
        problems = ["nothing"]
    outcome, baseline = outcome_of(problems, checks), draw(st.none() | st.just({"folder": "b"}))
    run, described = {"folder": draw(ANY_TEXT)}, {"path": draw(ANY_TEXT), "sha256": "0"}
    return Gate(1, outcome, "2026-11-25", run, described, baseline, problems, checks)


def told_by_banner(gate):
    text = banner(gate)
    first, *_, last = text.split("\n")
    told = sum(check.state not in ("pass", "skipped") for check in gate.checks)
    assert text.count("\n") == 1 + len(gate.problems) + told
    word, code = re.match(r"gate (.+) \(exit code (\d)\)", first).groups()
    counts = re.findall(r"(\d+) (\w+)(?=[,;])", last.split(" checks: ")[1].split("; policy ")[0] + ";")
    return word, int(code), {state: int(count) for count, state in counts}


def told_by_markdown(gate):
    text = summary(gate)
    facts, *rest = text.split("\n\n")
    word, code = re.search(r"\| outcome \| \*\*(.+)\*\* \(exit code (\d)\) \|", facts).groups()
    rows = rest[0].rstrip("\n").split("\n")[2:] if rest else []
    assert len(rest) <= 1
    assert all(line.startswith("| ") and line.endswith(" |") for line in text.splitlines() if line)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {5}
    return word, int(code), Counter(row.split(" | ")[0].removeprefix("| ") for row in rows)


def told_by_junit(gate):
    tree = etree.fromstring(junit(gate).encode())
    SCHEMA.assertValid(tree)
    cases = tree.findall("testsuite/testcase")
    inside = [next(iter(case), None) for case in cases]
    kinds = Counter(element.tag for element in inside if element is not None)
    for element in (tree, tree[0]):
        counts = [int(element.get(key)) for key in ("tests", "failures", "errors")]
        assert counts == [len(cases), kinds["failure"], kinds["error"]]
    assert bool(kinds["error"]) == (gate.exit_code == 5)
    assert bool(kinds["error"] + kinds["failure"]) == (gate.exit_code != 0)
    return Counter("pass" if element is None else element.get("type") for element in inside)


def all_agree(gate):
    wanted = Counter(gate.counts)
    assert told_by_banner(gate) == (WORDS[gate.outcome], gate.exit_code, dict(wanted))
    wanted["error"] += len(gate.problems)
    wanted = +wanted
    assert told_by_markdown(gate) == (WORDS[gate.outcome], gate.exit_code, wanted)
    assert told_by_junit(gate) == wanted
    blocked = {"error": "error" in wanted, "fail": "fail" in wanted, "inconclusive": "inconclusive" in wanted}
    assert gate.exit_code == EXIT_CODES[next((state for state, there in blocked.items() if there), "pass")]


@given(gates())
@examples(150)
def test_whatever_a_gate_holds_all_say_the_same_of_it(gate):
    all_agree(gate)


RULES = st.lists(
    st.sampled_from([
        "match: {metric: accuracy}, min: 0.5",
        "match: {variant: a, metric: accuracy}, min: 0.9, apply_to: ci_low",
        "match: {variant: z, metric: accuracy}, min: 0.1",
        'match: {variant: "b*", metric: accuracy}, vs: baseline, max_drop: {abs: 0.05}, test: paired',
        'match: {metric: accuracy}, vs: "variant:a", max_drop: {abs: 0.02}, test: paired, on_inconclusive: warn',
        "match: {metric: accuracy}, vs: baseline, max_drop: {rel: 0.1}",
        "match: {metric: nll}, vs: baseline, max_increase: {abs: 0.05}, test: paired",
        "match: {metric: nll, seed: 0}, max: 1.0",
        "match: {metric: acc/t}, vs: baseline, max_drop: {abs: 0.05}, test: paired",
        "match: {variant: a, metric: bits_per_byte}, vs: baseline, max_increase: {abs: 0.05}, test: paired",
    ]), min_size=1, max_size=4,
)  # fmt: skip
OUTCOMES = st.lists(st.booleans(), min_size=40, max_size=40)


@given(
    rules=RULES, a=OUTCOMES, b=OUTCOMES, c=OUTCOMES, failed=st.booleans(), limit=st.sampled_from([None, None, 10]),
    correction=st.sampled_from(["none", "none", "holm"]), waived=st.booleans(), baseline=st.booleans(),
)  # fmt: skip
@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_policies_on_runs_are_judged_alike_by_all(
    tmp_path, rules, a, b, c, failed, limit, correction, waived, baseline
):
    parts = [{"a": {"acc/t": [x[:20]], "bits_per_byte": [x]}, "b": {"acc/t": [y[:20]]}} for x, y in ((a, b), (b, c))]
    broken = {"f": ("failed", "it broke")} if failed else None
    run = planted({"a": [a], "b": [b]}, not_ok=broken, measures=parts[0])
    other = planted({"a": [b], "b": [c]}, measures=parts[1]) if baseline else None
    lines = [f"{{id: r{i}, {rule}}}" for i, rule in enumerate(rules)]
    more = f"defaults: {{correction: {correction}}}\n"
    more += 'waivers: [{rule: r0, variant: "*", reason: so, expires: 2027-01-01}]' if waived else ""
    gate = decide(policy(tmp_path, lines, more), changed(run, limit=limit), other, today=TODAY)
    write_gate(tmp_path / "gate.json", gate)
    assert read_gate(tmp_path / "gate.json") == gate
    all_agree(gate)
    assert gate.outcome == "error" or not (failed or limit)


def test_a_summary_too_long_for_github_keeps_the_worst_and_says_what_it_left_out(tmp_path):
    checks = [Check("r", f"variant-{i}" * 20, "accuracy", "all", "fail" if i == 8999 else "pass", "x" * 100)
              for i in range(9000)]  # fmt: skip
    gate = Gate(1, "fail", "2026-11-25", {"folder": "run"}, {"path": "p", "sha256": "0"}, None, [], checks)
    text = summary(gate)
    assert LIMIT - 1000 < len(text.encode()) < LIMIT
    rows = text.split("\n\n")[1].rstrip("\n").split("\n")[2:]
    assert rows[0].startswith("| fail | `r` | `variant-8999")
    left = int(re.search(r"(\d+) more rows are in gate\.json", rows[-1])[1])
    assert len(rows) - 1 + left == 9000
    step = tmp_path / "step"
    step.write_text("earlier\n" * 1000)
    write_summary(gate, None, str(step))
    assert step.read_text().startswith("earlier\n")
    assert LIMIT - 1000 < step.stat().st_size < LIMIT


def test_the_summary_goes_to_the_file_that_is_named_before_the_steps(tmp_path):
    gate = Gate(1, "error", "2026-11-25", {"folder": "run"}, {"path": "p", "sha256": "0"}, None, ["x"], [])
    write_summary(gate, tmp_path / "a.md", str(tmp_path / "b.md"))
    assert (tmp_path / "a.md").read_text() == summary(gate)
    assert not (tmp_path / "b.md").exists()
    write_summary(gate, None, None)


def test_a_banner_stays_short_and_says_where_the_rest_is():
    checks = [Check("r", f"v{i}", "accuracy", "all", "error", "x") for i in range(100)]
    gate = Gate(1, "error", "2026-11-25", {"folder": "run"}, {"path": "p", "sha256": "0"}, None, [], checks)
    lines = banner(gate).split("\n")
    assert len(lines) == SHOWN + 3
    assert lines[-2:] == [f"  {100 - SHOWN} more are in gate.json", "  100 checks: 100 error; policy p"]


@pytest.mark.parametrize("text", ["<script>", "a|b", "`x`", "[x](http://y)", "\x1b[31m", "\x00", "&amp;", "two\nlines"])
def test_what_a_run_is_called_cannot_change_what_is_shown(text):
    check = Check(text, text, text, "all", "fail", text)
    gate = Gate(1, "fail", "2026-11-25", {"folder": text}, {"path": text, "sha256": "0"}, None, [], [check])
    all_agree(gate)
    assert "\x1b" not in banner(gate)
    assert "<script>" not in re.sub(r"`[^`]*`", "", summary(gate))
    assert np.all([ord(character) >= 32 or character == "\n" for character in junit(gate)])
    assert dataclasses.asdict(gate)["checks"][0]["reason"] == text
