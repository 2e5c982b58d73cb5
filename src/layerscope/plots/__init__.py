"""One file per kind of picture: xarray in, a plotly Figure out.

Pictures draw numbers as they are given; what changes a number belongs in maths. They return a
figure and never write one. Labels come from `long_name` and `units`; labels that people or
tokenizers wrote are shown through `axes.label`.
"""

from __future__ import annotations

from layerscope.plots.along_text import curves_along_text
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.depth_pairs import depth_pairs
from layerscope.plots.differences import differences
from layerscope.plots.distribution import distribution
from layerscope.plots.heatmap import NamedHeatmap, heatmap_gallery, token_heatmap
from layerscope.plots.panels import rows_by_category
from layerscope.plots.phases import curves_with_phases
from layerscope.plots.strip import StripRow, layers_at_a_glance
from layerscope.plots.theme import leading, more

__all__ = [
    "NamedHeatmap",
    "StripRow",
    "curve_over_depth",
    "curves_along_text",
    "curves_with_phases",
    "depth_pairs",
    "differences",
    "distribution",
    "heatmap_gallery",
    "layers_at_a_glance",
    "leading",
    "more",
    "rows_by_category",
    "token_heatmap",
]
