"""`gate` of a sweep: from which budget on the loss against the teacher is more than a margin."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.commands.gating import make_case, run_gate, settle
from featherpress.errors import UsageError
from featherpress.escaping import escape_markdown
from featherpress.options import UndecidedAs
from featherpress.records.sweep import SWEEP, UNITS, Quantity, Sweep

if TYPE_CHECKING:
    from featherpress.verdicts import GateResult


def is_sweep(paths: Sequence[Path]) -> bool:
    """Tell a sweep's folder."""
    return len(paths) == 1 and (paths[0] / SWEEP).is_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepGate:
    """What the gate says of each budget, largest first.

    Budgets are asked in that order, each only where those before it are not worse, so that each may be as sure as one
    asked alone. Source: the fixed-sequence procedure, Maurer et al. 1995.
    """

    quantity: Quantity
    margin: float
    baseline: str
    results: tuple[tuple[int, "GateResult"], ...]

    @property
    def exit_code(self) -> int:
        """1 if a budget is worse, 3 if none is and one is undecided, else 0."""
        outcomes = [result.outcome for _, result in self.results]
        return 1 if "worse" in outcomes else 3 if "undecided" in outcomes else 0

    @property
    def holding(self) -> tuple[int, ...]:
        """The budgets that, with all above them, are not worse; largest first."""
        found: list[int] = []
        for budget, result in self.results:
            if result.outcome != "not worse":
                break
            found.append(budget)
        return tuple(found)

    @property
    def losing(self) -> tuple[int, ...]:
        """The budgets that, with all below them, are worse; smallest first."""
        found: list[int] = []
        for budget, result in reversed(self.results):
            if result.outcome != "worse":
                break
            found.append(budget)
        return tuple(found)

    @property
    def sentence(self) -> str:
        """From which budget on the loss is more than the margin."""
        unit, rival = UNITS[self.quantity], f"{self.baseline} by more than {self.margin:g}"
        between: dict[str, list[str]] = {}
        for budget, result in self.results:
            if budget not in {*self.holding, *self.losing}:
                between.setdefault(result.outcome, []).append(f"{budget:,}")
        parts = [f"At no budget is a student shown to be no worse than {rival}"]
        if self.holding:
            parts = [f"Down to {self.holding[-1]:,} {unit} no student is worse than {rival}"]
        parts += [f"{outcome} at {' and '.join(budgets)}" for outcome, budgets in between.items()]
        if self.losing:
            parts.append(f"from {self.losing[-1]:,} on down the loss is more than that")
        return f"{'; '.join(parts)}."

    def to_dict(self) -> dict[str, Any]:
        """Return the record `featherpress.sweep-gate/1`."""
        return {
            "schema": "featherpress.sweep-gate/1",
            "sentence": self.sentence,
            "quantity": self.quantity,
            "margin": self.margin,
            "holding": list(self.holding),
            "losing": list(self.losing),
            "budgets": [{"budget": budget, **result.to_dict()} for budget, result in self.results],
        }


def gate_sweep(
    folder: Path, baseline: Sequence[Path], *, margin: str, metric: str = "", confidence: float = 0.95
) -> SweepGate:
    """Decide for each budget of a sweep that is done, against its teacher, or against a baseline.

    Errors: UsageError for a sweep of which nothing is done; those of the gate.
    """
    sweep = Sweep.load(folder / SWEEP)
    if not sweep.points:
        raise UsageError(
            f"no budget of the sweep in {folder} is done yet: go on with it by `featherpress sweep --resume`"
        )
    results = []
    for point in reversed(sweep.points):
        own = folder / point.folder
        rival = baseline or [own / "eval" / "teacher.json"]
        found = run_gate([own], rival, margin=margin, metric=metric, confidence=confidence)
        results.append((point.budget, found))
    named = "the teacher" if not baseline else results[0][1].baseline
    return SweepGate(quantity=sweep.quantity, margin=results[0][1].margin, baseline=named, results=tuple(results))


def writers(found: SweepGate, undecided: UndecidedAs | None) -> dict[str, Callable[[], str]]:
    """Return what writes a sweep's gate in each format."""
    return {
        "json": lambda: json.dumps(found.to_dict(), indent=2) + "\n",
        "text": lambda: "".join(f"{line}\n" for line in (*_lines(found), found.sentence)),
        "markdown": lambda: render_sweep_markdown(found, undecided),
        "junit": lambda: render_sweep_junit(found, undecided),
    }


def _lines(found: SweepGate) -> list[str]:
    return [f"{budget:,} {UNITS[found.quantity]}: {result.sentence}" for budget, result in found.results]


def render_sweep_markdown(found: SweepGate, undecided: UndecidedAs | None) -> str:
    """Make GitHub-flavoured Markdown: a row a budget, and the sentence."""
    from featherpress.budgets.views.layout import markdown_table

    rows = [
        [
            f"{budget:,}",
            f"{result.scores[0]:.4f}",
            f"{result.interval.difference:+.4f}",
            f"{result.interval.low:+.4f} to {result.interval.high:+.4f}",
            f"**{result.outcome}**" if settle(result.exit_code, undecided) else result.outcome,
        ]
        for budget, result in found.results
    ]
    first = found.results[0][1]
    header = [
        f"budget ({UNITS[found.quantity]})",
        first.metric,
        "difference",
        f"{100 * first.confidence:g}% ends",
        "outcome",
    ]
    title = escape_markdown(f"{first.metric} against {found.baseline}, margin {found.margin:g}")
    return "\n".join([f"## {title}", "", *markdown_table(header, rows), "", escape_markdown(found.sentence)]) + "\n"


def render_sweep_junit(found: SweepGate, undecided: UndecidedAs | None) -> str:
    """Make JUnit XML: a case a budget, failed where one that was asked alone would be."""
    from featherpress.budgets.views.junit import render_suite

    cases = []
    for budget, result in found.results:
        rival = f"{result.metric} not worse than {found.baseline} by {found.margin:g}"
        failed = settle(result.exit_code, undecided) != 0
        cases.append(make_case(result, f"{budget:,} {UNITS[found.quantity]}: {rival}", failed=failed))
    return render_suite("featherpress gate", cases, classname="sweep", said=[found.sentence])
