"""A report from the records of one run or several: Markdown and figures, and on request one page, LaTeX and vectors."""

import re
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib import rc_context

from featherpress.errors import FileError, UsageError
from featherpress.reports.blocks import Block, Heading, Picture, Remark
from featherpress.reports.figures.style import save
from featherpress.reports.given import ReadScores
from featherpress.reports.runs import Run
from featherpress.reports.sections import (
    accuracy,
    checks,
    classes,
    costs,
    decision,
    deployment,
    learning,
    provenance,
    pruning,
    summary,
    sweep,
    tradeoff,
    verdict,
)
from featherpress.reports.sections.context import Draw, RunContext
from featherpress.reports.sources import Sources, load_sources, read_csv_scores
from featherpress.reports.writers import MARK
from featherpress.reports.writers.latex import to_latex
from featherpress.reports.writers.markdown import to_markdown
from featherpress.reports.writers.page import to_page

COSTS = (costs.where_parameters_went, costs.costs, costs.architecture, checks.budgets, checks.claims)
DRAWN = 24
"""Of so many of the runs that are set side by side figures are drawn, which take most of the time."""
COUNTED = (*COSTS, provenance.reproduction)
SECTIONS = (
    pruning.pruned,
    *COSTS,
    accuracy.accuracy,
    classes.by_class,
    verdict.distillation,
    learning.training,
    learning.correlation,
    accuracy.curves,
    accuracy.gallery,
    classes.pictures,
    provenance.environment,
    provenance.reproduction,
    provenance.stamps,
)
SCORED = (
    accuracy.accuracy,
    accuracy.differences,
    classes.by_class,
    accuracy.curves,
    provenance.stamps,
    provenance.reproduction,
)
COMPARED = (verdict.distillation, provenance.reproduction)
# Once in a report, however many runs it is of.
SHARED = (deployment.benchmarks, deployment.exports, deployment.unread)

LONGEST_SLUG = 60  # characters


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    page: bool = False,
    latex: bool = False,
    vectors: Collection[str] = (),
    read_scores: ReadScores = read_csv_scores,
) -> Path:
    """Write `report.md` and `figures/*.png` into `out`, by default the first run's `report/`; return the Markdown.

    `paths` are run directories, those of sweeps and of evaluations, what `compare_arms` wrote, and records of audits,
    evaluations, benchmarks and exports, with those of models beside them; benchmarks and exports in a run's directory
    are found there. A CSV file, or a JSON list,
    has numbers measured elsewhere, a row a model; `read_scores` reads the files of scores per example that it names.

    With `page` there is `report.html` too, one file with all inside; with `latex` `tables.tex`; `vectors`, "pdf" or
    "svg", lie beside every PNG. All is drawn beside `out` first and then renamed, the Markdown last: an interrupted
    report leaves the old one.

    Errors: `UsageError` without any of these, without `out` where no run says where to, and for audits to be
    compared that were counted at different inputs, and for a file in `out` that no report left and that this one would
    replace; `FileError` when a record is broken or the folder cannot be written.
    """
    options = [*(["--out", str(out)] if out else []), *(["--html"] if page else [])]
    options += [*(["--format", "latex"] if latex else []), *(f"--figures={kind}" for kind in sorted(vectors))]
    sources = replace(load_sources(paths, read_scores), asked=[*map(str, paths), *options])
    for run in sources.runs:
        _require_one_size(run)
    if out is None:
        folders = [each.file.parent for each in sources.sweeps]
        folders += [run.path for run in sources.runs if not run.counted_only]
        if not folders or (sources.runs[:1] and sources.runs[0].counted_only):
            raise UsageError("expected --out DIR, got none: no run directory was named that the report could go into.")
        out = folders[0] / "report"
    blocks, figures = _compose(sources)
    texts = ["report.md", *(["report.html"] if page else []), *(["tables.tex"] if latex else [])]
    _require_own(out, texts, [f"{name}.{kind}" for name in figures for kind in ("png", *sorted(vectors))])
    try:
        _publish(out, blocks, figures, page=page, latex=latex, vectors=vectors)
    except OSError as error:
        raise FileError(f"{out}: expected a folder that can be written, got {error.strerror or error}.") from error
    return out / "report.md"


def _require_own(out: Path, texts: Sequence[str], figures: Sequence[str]) -> None:
    """Refuse to replace a text that does not say that it is of a report, and figures beside which there is none."""
    foreign = [out / name for name in texts if (out / name).is_file() and not _is_own(out / name)]
    if not (out / "report.md").is_file():
        foreign += [file for name in figures if (file := out / "figures" / name).is_file()]
    if foreign:
        raise UsageError(f"{foreign[0]} is there and is of no report, so that it is not replaced; choose another --out")


def _is_own(file: Path) -> bool:
    text = file.read_bytes()
    return not text or MARK.encode() in text


def _require_one_size(run: Run) -> None:
    """Refuse to set multiply-accumulates of different inputs side by side: they say nothing of the models."""
    sizes = [" and ".join("x".join(map(str, shape)) for shape in audit.inputs) for _, audit in run.audits]
    if len(set(sizes)) > 1:
        counted = ", ".join(f"{audit.model} at {size}" for (_, audit), size in zip(run.audits, sizes, strict=True))
        raise UsageError(f"expected audits of one input size, got {counted}: count them again with the same --input.")


def _compose(sources: Sources) -> tuple[list[Block], dict[str, Draw]]:
    """Return the report's blocks and the figures they show, by name."""
    runs = sources.runs
    whole = RunContext(run=runs[0] if runs else Run(path=Path(), counted_only=True), sources=sources, figures={})
    lead = sources.given and whole.run.counted_only
    given = _table_first(tradeoff.as_given(whole)) if lead else []
    blocks: list[Block]
    if sources.sweeps and not runs:
        blocks = sweep.swept(whole, title=True)
        for section in (tradeoff.as_given, *SHARED, sweep.reproduction):
            blocks += section(whole)
        return blocks, whole.figures
    if not (runs or lead or sources.sweeps):
        blocks = [Heading(text=summary.deployed(sources), level=1), *decision.decision(whole, runs)]
        return [*blocks, *(b for section in (*SHARED, provenance.reproduction) for b in section(whole))], whole.figures
    if len(runs) < 2:
        title = summary.compared(tradeoff.names(whole)) if lead else summary.title(whole.run)
        blocks = [Heading(text=title, level=1), *(given or decision.decision(whole, runs)), *_write(whole)]
    else:
        first, *rest = summary.side_by_side(runs)
        if lead:
            first = Heading(text=summary.compared(tradeoff.names(whole)), level=1)
        blocks = [first, *(given or decision.decision(whole, runs)), *rest]
        for number, run in enumerate(runs, start=1):
            prefix = f"{number}-{slug(run.name)}-"
            context = replace(whole, run=run, prefix=prefix, level=3)
            named = "" if run.counted_only or run.scored_only else f"Run {number}, `{run.name}`: "
            said = _write(context)
            if number > DRAWN:
                said = _without_pictures(said, whole.figures)
            blocks += [Heading(text=f"{named}{summary.title(run)}", level=2), *said]
        if len(runs) > DRAWN:
            text = f"Figures are drawn of the first {DRAWN} alone: name those of which you want to see more."
            blocks.append(Remark(text=text, kind="note"))
    for section in (sweep.swept, *(() if lead else (tradeoff.as_given,)), *SHARED):
        blocks += section(whole)
    return blocks, whole.figures


def _table_first(blocks: Sequence[Block]) -> list[Block]:
    """Put the table to decide by above the first section's title, and with it above the contents."""
    title, table, *rest = blocks
    return [table, *([title] if rest and not isinstance(rest[0], Heading) else []), *rest]


def _without_pictures(blocks: Sequence[Block], figures: dict[str, Draw]) -> list[Block]:
    for block in blocks:
        if isinstance(block, Picture):
            del figures[block.file]
    return [block for block in blocks if not isinstance(block, Picture)]


def _write(context: RunContext) -> list[Block]:
    """Return all that is said of one run; of numbers alone, how to make their report again."""
    run = context.run
    if run.counted_only and not run.audits:
        return provenance.reproduction(context)
    sections = COUNTED if run.counted_only else COMPARED if run.in_a_loop else SCORED if run.scored_only else SECTIONS
    return [*summary.summary(context), *(block for section in sections for block in section(context))]


def slug(name: str) -> str:
    """Return a name as a part of a file's that every system and every web server takes; not unique by itself."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:LONGEST_SLUG]


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
        texts["report.md"] = f"{to_markdown(blocks)}\n<!-- Text {MARK} -->\n"
        for name, text in texts.items():
            (drawn / name).write_text(text, encoding="utf-8")
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for file in (*sorted((drawn / "figures").iterdir()), *(drawn / name for name in texts)):
            file.replace(out / file.relative_to(drawn))


def render(draw: Draw, files: Sequence[Path]) -> None:
    """Draw a figure and save it as each of the files' suffixes says; a $ in a name begins no formula."""
    with rc_context({"text.parse_math": False}):
        figure = draw()
        for file in files:
            save(figure, file)
