"""Figures and tables: the only part of the package that draws."""

from diffcorr.reports.bars import draw_bars
from diffcorr.reports.callbacks import FigureCallback, log_figure
from diffcorr.reports.canvas import as_array, save_figure
from diffcorr.reports.heat_table import draw_heat_table
from diffcorr.reports.heatmaps import draw_heatmaps, draw_word_maps, short_layer_name
from diffcorr.reports.masks import draw_segmentation, draw_segmentation_sheet
from diffcorr.reports.matches import draw_matches
from diffcorr.reports.panels import log_curve, log_table
from diffcorr.reports.sheets import draw_sheet
from diffcorr.reports.tables import results_table

__all__ = [
    "FigureCallback",
    "as_array",
    "draw_bars",
    "draw_heat_table",
    "draw_heatmaps",
    "draw_matches",
    "draw_segmentation",
    "draw_segmentation_sheet",
    "draw_sheet",
    "draw_word_maps",
    "log_curve",
    "log_figure",
    "log_table",
    "results_table",
    "save_figure",
    "short_layer_name",
]
