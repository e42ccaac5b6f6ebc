"""The sections of a report: each a function from a chapter to its blocks, empty when it has nothing to say."""

from featherpress.reports.sections.accuracy import accuracy, curves, distillation, gallery
from featherpress.reports.sections.chapters import Chapter, Draw
from featherpress.reports.sections.checks import budgets, claims
from featherpress.reports.sections.costs import architecture, costs, where_parameters_went
from featherpress.reports.sections.deployment import benchmarks, exports, landscape
from featherpress.reports.sections.learning import correlation, training
from featherpress.reports.sections.provenance import environment, reproduction, stamps

__all__ = ["COUNTED", "SECTIONS", "SHARED", "Chapter", "Draw"]

COUNTED = (where_parameters_went, costs, architecture, budgets, claims)
SECTIONS = (
    *COUNTED,
    accuracy,
    distillation,
    training,
    correlation,
    curves,
    gallery,
    landscape,
    environment,
    reproduction,
    stamps,
)
# Once in a report, however many runs it is of.
SHARED = (benchmarks, exports)
