"""The figures: each a function from records to a matplotlib `Figure`, in one style."""

from featherpress.reports.figures.accuracy import ap_by_height, precision_recall
from featherpress.reports.figures.costs import parameters_by_component, waterfall
from featherpress.reports.figures.gallery import draw_gallery
from featherpress.reports.figures.style import save
from featherpress.reports.figures.training import training_curves

__all__ = [
    "ap_by_height",
    "draw_gallery",
    "parameters_by_component",
    "precision_recall",
    "save",
    "training_curves",
    "waterfall",
]
