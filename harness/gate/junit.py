"""A gate as JUnit XML (Jenkins' schema junit-10), which most CI systems show."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.display.lines import escaped
from harness.gate.record import Check, Gate

ELEMENTS = {"error": "error", "fail": "failure", "inconclusive": "failure", "warning": "skipped", "waived": "skipped",
            "skipped": "skipped", "pass": None}  # fmt: skip
"""What a check of each state has inside; the state is the element's type."""


def junit(gate: Gate) -> str:
    """One test case for each check, and one that errs for each problem of the run as a whole."""
    cases = [_case(gate.run["folder"], f"run {index}", "error", problem)
             for index, problem in enumerate(gate.problems, 1)]  # fmt: skip
    cases += [_case(check.rule, _name(check), check.state, check.reason) for check in gate.checks]
    count = {kind: str(sum(case.find(kind) is not None for case in cases)) for kind in ("failure", "error", "skipped")}
    totals = {"tests": str(len(cases)), "failures": count["failure"], "errors": count["error"]}
    suites = ElementTree.Element("testsuites", {"name": "stockpot gate", **totals})
    described = {"name": escaped(gate.policy["path"]), "timestamp": f"{gate.date}T00:00:00"}
    suite = ElementTree.SubElement(suites, "testsuite", {**described, **totals, "skipped": count["skipped"]})
    suite.extend(cases)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _name(check: Check) -> str:
    return f"{check.variant} {check.metric}" + ("" if check.seed == "all" else f" seed {check.seed}")


def _case(classname: str, name: str, state: str, reason: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=escaped(classname), name=escaped(name))
    if element := ELEMENTS[state]:
        ElementTree.SubElement(case, element, type=state, message=escaped(reason))
    return case
