"""A report from the records of one run or several: Markdown and figures, and on request one page, LaTeX and vectors."""

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from featherpress.errors import FileError, UsageError
from featherpress.reports.blocks import Block, Heading, Paragraph, Table
from featherpress.reports.figures import save
from featherpress.reports.formats import DASH, change, integer, spread
from featherpress.reports.inputs import Inputs, load_inputs
from featherpress.reports.runs import Run
from featherpress.reports.scores import score, scores
from featherpress.reports.sections import COUNTED, SECTIONS, SHARED, Chapter, Draw
from featherpress.reports.writers import to_latex, to_markdown, to_page

__all__ = ["write_report"]


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    page: bool = False,
    latex: bool = False,
    vectors: Collection[str] = (),
) -> Path:
    """Write `report.md` and `figures/*.png` into `out`, by default the first run's `report/`; return the Markdown.

    `paths` are run directories, and records of audits, models and benchmarks beside them. With `page` there is
    `report.html` too, one file with all inside; with `latex` `tables.tex`; `vectors`, "pdf" or "svg", lie beside every
    PNG. All is drawn beside `out` first and then renamed, the Markdown last: an interrupted report leaves the old one.

    Errors: `UsageError` without a run or an audit, without `out` where no run says where to, and for audits to be
    compared that were counted at different inputs; `FileError` when a
    record is broken or the folder cannot be written.
    """
    inputs = load_inputs(paths)
    for run in inputs.runs:
        _require_one_size(run)
    if out is None:
        if inputs.runs[0].counted_only:
            raise UsageError("expected --out DIR, got none: no run directory was named that the report could go into.")
        out = inputs.runs[0].path / "report"
    blocks, figures = _compose(inputs)
    try:
        _publish(out, blocks, figures, page=page, latex=latex, vectors=vectors)
    except OSError as error:
        raise FileError(f"{out}: expected a folder that can be written, got {error.strerror or error}.") from error
    return out / "report.md"


def _require_one_size(run: Run) -> None:
    """Refuse to set multiply-accumulates of different inputs side by side: they say nothing of the models."""
    sizes = {audit.model: " and ".join("x".join(map(str, shape)) for shape in audit.inputs) for _, audit in run.audits}
    if len(set(sizes.values())) > 1:
        counted = ", ".join(f"{model} at {size}" for model, size in sizes.items())
        raise UsageError(f"expected audits of one input size, got {counted}: count them again with the same --input.")


def _compose(inputs: Inputs) -> tuple[list[Block], dict[str, Draw]]:
    """Return the report's blocks and the figures they show, by name."""
    figures: dict[str, Draw] = {}
    runs = inputs.runs
    blocks: list[Block]
    if len(runs) == 1:
        blocks = [Heading(text=_title(runs[0]), level=1), Paragraph(text=_verdict(runs[0]))]
        chapters = [Chapter(run=runs[0], inputs=inputs, figures=figures)]
    else:
        blocks = [Heading(text=f"{len(runs)} runs side by side", level=1), _runs_table(runs)]
        chapters = [
            Chapter(run=run, inputs=inputs, prefix=f"{number}-{run.name}-", level=3, figures=figures)
            for number, run in enumerate(runs, start=1)
        ]
    for number, chapter in enumerate(chapters, start=1):
        if len(runs) > 1:
            title = f"Run {number}, `{chapter.run.name}`: {_title(chapter.run)}"
            blocks += [Heading(text=title, level=2), Paragraph(text=_verdict(chapter.run))]
        for section in COUNTED if chapter.run.counted_only else SECTIONS:
            blocks += section(chapter)
    for section in SHARED:
        blocks += section(Chapter(run=runs[0], inputs=inputs, figures=figures))
    return blocks, figures


def _title(run: Run) -> str:
    if run.counted_only:
        return f"Counting {' against '.join(f'`{audit.model}`' for _, audit in run.audits)}"
    if run.distilled:
        return f"Distilling `{run.teacher_model}` into `{run.student_model}`"
    return f"Training `{run.student_model}`"


def _verdict(run: Run) -> str:
    """Return the run's one sentence, as the comparison wrote it."""
    if run.counted_only:
        return "**Counted, not trained: nothing is said of accuracy.**"
    if run.comparison is not None:
        return f"**{run.comparison.sentence}**"
    if run.distilled:
        return "**No comparison with a control was recorded, so nothing is claimed about distillation.**"
    return "**One model trained without a teacher: there is nothing to compare it with.**"


def _runs_table(runs: Sequence[Run]) -> Table:
    header = ["run", "student", "parameters", "MACs", "AP control", "AP student", "difference", "interval", "verdict"]
    rows = [_run_row(run) for run in runs]
    return Table(name="runs", title="All runs", header=header, rows=rows, align="llrrrrrll")


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


def _publish(
    out: Path,
    blocks: Sequence[Block],
    figures: dict[str, Draw],
    *,
    page: bool,
    latex: bool,
    vectors: Collection[str],
) -> None:
    """Write all files under a temporary name, then rename each into place, the Markdown last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        drawn = Path(folder)
        (drawn / "figures").mkdir()
        for name, draw in figures.items():
            render(draw, [drawn / "figures" / f"{name}.{kind}" for kind in ("png", *sorted(vectors))])
        texts = {"tables.tex": to_latex(blocks)} if latex else {}
        if page:
            texts["report.html"] = to_page(
                blocks, {name: (drawn / "figures" / f"{name}.png").read_bytes() for name in figures}
            )
        texts["report.md"] = to_markdown(blocks)
        for name, text in texts.items():
            (drawn / name).write_text(text, encoding="utf-8")
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for file in (*sorted((drawn / "figures").iterdir()), *(drawn / name for name in texts)):
            file.replace(out / file.relative_to(drawn))


def render(draw: Draw, files: Sequence[Path]) -> None:
    """Draw a figure and save it as each of the files' suffixes says."""
    figure = draw()
    for file in files:
        save(figure, file)
