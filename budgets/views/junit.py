"""Results as JUnit XML, valid by Jenkins' schema (junit-10): a suite of cases with counts of failures and errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from featherpress.budgets.auditing.audit import QUANTITIES, Audit
from featherpress.escaping import visible
from featherpress.records.audit import Component


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case: why it did not pass, if it did not, in short and at length, and what it says beside."""

    name: str
    outcome: Literal["passed", "failure", "error", "skipped"] = "passed"
    message: str = ""
    text: str = ""
    said: Sequence[str] = ()


def render_suite(name: str, cases: Sequence[Case], *, classname: str = "", said: Sequence[str] = ()) -> str:
    """Make the XML of a suite, in ASCII so that no console can break it."""
    tally = {f"{kind}s": sum(case.outcome == kind for case in cases) for kind in ("failure", "error")}
    tally["skipped"] = sum(case.outcome == "skipped" for case in cases)
    counts = {"tests": str(len(cases)), **{key: str(many) for key, many in tally.items()}}
    suite = ElementTree.Element("testsuite", {"name": _clean(name), **counts})
    for case in cases:
        element = ElementTree.SubElement(suite, "testcase", classname=_clean(classname or name), name=_clean(case.name))
        if case.outcome != "passed":
            problem = ElementTree.SubElement(element, case.outcome, message=_clean(case.message))
            problem.text = _clean(case.text) or None
        if case.said:
            ElementTree.SubElement(element, "system-out").text = _clean("\n".join(case.said))
    if said:
        ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(said))
    ElementTree.indent(suite)
    return str(ElementTree.tostring(suite, encoding="us-ascii", xml_declaration=True), "ascii") + "\n"


def render_error(name: str, error: Exception) -> str:
    """Make the XML of what could not be done at all: one case, an error."""
    case = Case(name="(run)", outcome="error", message=str(error), text=f"{type(error).__name__}: {error}")
    return render_suite(name, [case])


def render_junit(result: Audit) -> str:
    """Make a case each for the components, the total, the accuracy and the claims, failed where the audit fails."""
    left = list(result.failures)
    cases = []
    for row in (*result.components, result.total):
        sentences = [failure for failure in left if failure.startswith(f"{row.name} has ")]
        left = [failure for failure in left if failure not in sentences]
        cases.append(_row_case(row, sentences, result))
    if accuracy := result.accuracy:
        left = [failure for failure in left if accuracy.sentence not in failure]
        failed = accuracy.outcome != "not worse"
        sentence = accuracy.sentence
        cases.append(
            Case(name="(accuracy)", outcome="failure", message=accuracy.outcome, text=sentence)
            if failed
            else Case(name="(accuracy)", said=[sentence])
        )
    if result.claims:
        cases.append(_failed("(claims)", left) if left else Case(name="(claims)"))
    return render_suite(result.model, cases, said=[f"note: {note}" for note in result.notes])


def _row_case(row: Component, sentences: Sequence[str], result: Audit) -> Case:
    warnings = [
        f"warning: {row.name} has {check.actual:,} {QUANTITIES[check.quantity]}, {check.beyond:,} above {check.warn:,}"
        for check in row.checks
        if check.verdict == "warn"
    ]
    if sentences:
        return _failed(row.name, sentences, said=warnings)
    if not row.checks and not result.baseline:
        return Case(name=row.name, outcome="skipped", message="no limit")
    return Case(name=row.name, said=warnings)


def _failed(name: str, sentences: Sequence[str], said: Sequence[str] = ()) -> Case:
    """Say in the message why, and at length what to do."""
    short = "; ".join(sentence.partition("; ")[0] for sentence in sentences)
    return Case(name=name, outcome="failure", message=short, text="\n".join(sentences), said=said)


def _clean(text: str) -> str:
    return visible(text, lines=True)  # XML 1.0 cannot hold the others, escaped or not
