"""From samples to intervals, and from intervals to sentences: once, for all experiments.

    # conclude.py: samples to quantities
    over = Over(stages["reading"], settings, rows="token_passage")        # units, resampling, level
    share = named(cell_by_cell(divide, reading.fresh, reading.attention), "read_directly", "share of attention")
    place = named(along("layer", centroid, over.units(share)), "place", "centroid of direct reading", "layer")
    gap = named(cell_by_cell(apart, place.isel(range=-1), place.isel(range=0)), "gap", "far less near", "layer")
    return xr.merge([over.mean(share, together="layer", draws=True), over.mean(place), over.paired(gap)])

    # conclude.py, too: what the atlas lays beside other experiments
    def over_depth(result):
        return {"read_directly": measure(result, "read_directly", label="direct reading", sense="...")}

    # claims.py: quantities to sentences; no `if` over a sign, no digits, no interval by hand
    gap = finding(result, "gap")
    yield gap.claim(
        f"far context is read {gap.size} {gap.which('later', 'earlier')} than near context",
        nothing="difference in depth between reading far and near context",
        untrained=("null", "fresh weights read all distances alike"),
    )
    best = strongest(result, "read_directly", over="layer")               # interval for all layers at once
    yield best.claim(f"layer {best.select['layer']} reads most: {best.estimate} of attention's output")

`Finding.claim` says the sentence, the null's ("No detectable ..."), or "Too few passages to test ...".
"""

from layerscope.evidence.coordinates import (
    depth_coordinate,
    groups_along,
    layer_coordinate,
    number_coordinate,
    passage_token_coordinates,
    prompt_coordinates,
    prompt_in_words,
    prompt_token_coordinates,
    prompts_coordinates,
    text_coordinate,
)
from layerscope.evidence.curves import as_curve, as_rows, as_variables, measure
from layerscope.evidence.families import holm_over, labelled, side_by_side
from layerscope.evidence.findings import Finding
from layerscope.evidence.found import (
    finding,
    level_of,
    on_either_side,
    rest_of,
    settings_of,
    strongest,
    supported,
    untested,
)
from layerscope.evidence.naming import along, cell_by_cell, named, samples
from layerscope.evidence.over import Over
from layerscope.evidence.pairs import claims_of_pairs
from layerscope.evidence.places import at_depths, head_name, largest_first, places_in_words
from layerscope.evidence.resampled import Resampled
from layerscope.evidence.settings import CutPassages, Intervals

__all__ = [
    "CutPassages",
    "Finding",
    "Intervals",
    "Over",
    "Resampled",
    "along",
    "as_curve",
    "as_rows",
    "as_variables",
    "at_depths",
    "cell_by_cell",
    "claims_of_pairs",
    "depth_coordinate",
    "finding",
    "groups_along",
    "head_name",
    "holm_over",
    "labelled",
    "largest_first",
    "layer_coordinate",
    "level_of",
    "measure",
    "named",
    "number_coordinate",
    "on_either_side",
    "passage_token_coordinates",
    "places_in_words",
    "prompt_coordinates",
    "prompt_in_words",
    "prompt_token_coordinates",
    "prompts_coordinates",
    "rest_of",
    "samples",
    "settings_of",
    "side_by_side",
    "strongest",
    "supported",
    "text_coordinate",
    "untested",
]
