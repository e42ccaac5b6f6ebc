"""One Markdown file and its figures from the records of one run or several."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from featherpress.errors import FileError, UsageError
from featherpress.reports.figures import save
from featherpress.reports.formats import DASH, change, integer, spread
from featherpress.reports.runs import Run, load_run
from featherpress.reports.scores import score, scores
from featherpress.reports.sections import SECTIONS, Chapter
from featherpress.reports.tables import table

__all__ = ["write_report"]


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write `report.md` and `figures/*.png` into `out`, by default the first run's `report/`; return the Markdown.

    All is drawn beside `out` first and then renamed, the Markdown last: an interrupted report leaves the old one.

    Errors: `UsageError` without a run; `FileError` when a record is broken or the folder cannot be written.
    """
    if not run_dirs:
        raise UsageError("expected at least one run directory, got none; name one that `featherpress distill` wrote.")
    runs = [load_run(path) for path in run_dirs]
    out = runs[0].path / "report" if out is None else out
    text, figures = _compose(runs)
    try:
        _publish(out, text, figures)
    except OSError as error:
        raise FileError(f"{out}: expected a folder that can be written, got {error.strerror or error}.") from error
    return out / "report.md"


def _compose(runs: Sequence[Run]) -> tuple[str, dict[str, Figure]]:
    """Return the Markdown and the figures it shows, by file name."""
    figures: dict[str, Figure] = {}
    if len(runs) == 1:
        parts = [f"# {_title(runs[0])}", _verdict(runs[0])]
        chapters = [Chapter(run=runs[0], figures=figures)]
    else:
        parts = [f"# {len(runs)} runs side by side", _runs_table(runs)]
        chapters = [
            Chapter(run=run, prefix=f"{number}-{run.name}-", level=3, figures=figures)
            for number, run in enumerate(runs, start=1)
        ]
    for number, chapter in enumerate(chapters, start=1):
        if len(runs) > 1:
            parts += [f"## Run {number}, `{chapter.run.name}`: {_title(chapter.run)}", _verdict(chapter.run)]
        for section in SECTIONS:
            parts += section(chapter)
    return "\n\n".join(parts) + "\n", figures


def _title(run: Run) -> str:
    if run.distilled:
        return f"Distilling `{run.teacher_model}` into `{run.student_model}`"
    return f"Training `{run.student_model}`"


def _verdict(run: Run) -> str:
    """Return the run's one sentence, as the comparison wrote it."""
    if run.comparison is not None:
        return f"**{run.comparison.sentence}**"
    if run.distilled:
        return "**No comparison with a control was recorded, so nothing is claimed about distillation.**"
    return "**One model trained without a teacher: there is nothing to compare it with.**"


def _runs_table(runs: Sequence[Run]) -> str:
    header = ["run", "student", "parameters", "MACs", "AP control", "AP student", "difference", "interval", "verdict"]
    return table(header, [_run_row(run) for run in runs], align="llrrrrrll")


def _run_row(run: Run) -> list[str]:
    total = run.budget.student.total if run.budget else None
    costs = [integer(total.params if total else None), integer(total.macs if total else None)]
    row = [f"`{run.name}`", f"`{run.student_model}`", *costs]
    if run.comparison is None:
        return [*row, DASH, score(scores(run.evaluations("student"))), DASH, DASH, DASH]
    control, distilled, found = run.comparison.control, run.comparison.distilled, run.comparison.difference
    return [
        *row,
        spread(control.mean, control.std),
        spread(distilled.mean, distilled.std),
        change(found.mean),
        f"[{change(found.low)}, {change(found.high)}]",
        found.verdict,
    ]


def _publish(out: Path, text: str, figures: dict[str, Figure]) -> None:
    """Write all files under a temporary name, then rename each into place, the Markdown last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        drawn = Path(folder)
        for name, figure in figures.items():
            save(figure, drawn / name)
        (drawn / "report.md").write_text(text, encoding="utf-8")
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name in figures:
            (drawn / name).replace(out / "figures" / name)
        (drawn / "report.md").replace(out / "report.md")
