"""The sections of a report: each a function from a chapter to its Markdown parts, empty when it has nothing to say."""

from featherpress.reports.sections.accuracy import accuracy, curves, distillation, gallery, training
from featherpress.reports.sections.chapters import Chapter
from featherpress.reports.sections.costs import budgets, claims, costs, where_parameters_went
from featherpress.reports.sections.provenance import environment, reproduction, stamps

__all__ = ["SECTIONS", "Chapter"]

SECTIONS = (
    where_parameters_went,
    costs,
    budgets,
    claims,
    accuracy,
    distillation,
    training,
    curves,
    gallery,
    environment,
    reproduction,
    stamps,
)
