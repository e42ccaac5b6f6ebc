"""The sections of a report: each a function from a context to its blocks, empty when it has nothing to say."""

from featherpress.reports.sections.accuracy import accuracy, curves, gallery
from featherpress.reports.sections.checks import budgets, claims
from featherpress.reports.sections.context import Draw, RunContext
from featherpress.reports.sections.costs import architecture, costs, where_parameters_went
from featherpress.reports.sections.deployment import benchmarks, exports, unread
from featherpress.reports.sections.learning import correlation, training
from featherpress.reports.sections.provenance import environment, reproduction, stamps
from featherpress.reports.sections.summary import side_by_side, summary, title
from featherpress.reports.sections.verdict import distillation

__all__ = ["COUNTED", "SECTIONS", "SHARED", "RunContext", "Draw", "summary", "side_by_side", "title"]

COSTS = (where_parameters_went, costs, architecture, budgets, claims)
COUNTED = (*COSTS, reproduction)
SECTIONS = (
    *COSTS,
    accuracy,
    distillation,
    training,
    correlation,
    curves,
    gallery,
    environment,
    reproduction,
    stamps,
)
# Once in a report, however many runs it is of.
SHARED = (benchmarks, exports, unread)
