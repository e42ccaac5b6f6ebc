"""The figures: each a function from records to a matplotlib `Figure`, in one style."""

from featherpress.reports.figures.accuracy import ap_by_height, precision_recall
from featherpress.reports.figures.correlation import level_correlation
from featherpress.reports.figures.costs import costs_by_component, waterfall
from featherpress.reports.figures.gallery import draw_gallery
from featherpress.reports.figures.style import save
from featherpress.reports.figures.training import training_curves

__all__ = [
    "ap_by_height",
    "costs_by_component",
    "draw_gallery",
    "level_correlation",
    "precision_recall",
    "save",
    "training_curves",
    "waterfall",
]
