"""The conclusion of word_formation, from saved parts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.quantities import interval_variables, stacked
from layerscope.maths.bootstrap import Interval, bootstrap_difference, bootstrap_mean
from layerscope.maths.centroid import centroid
from layerscope.maths.transitions import last_rise_through
from layerscope.results.schema import quantity, read_json, write_json

FEWEST_WORDS = 6
"""Words with two forms below which nothing about them has an interval: of four that agree, resamples agree too."""


def conclude(stages: Earlier, settings: Any) -> xr.Dataset:
    """Everything that the result holds."""
    pairs = stages["pairs"]
    left_out = np.where(
        pairs.apart.values < settings.smallest, f"predictions less than {settings.smallest:g} nats apart", ""
    )
    crossing = np.array(
        [
            last_rise_through(last - earlier, 0.0)
            for earlier, last in pairs.recovered.values.astype(np.float64)
        ]
    )
    kept = left_out == ""
    # The middle of the work of each part: depth l + 1/2 is inside block l.
    centre = centroid(pairs.recovered_part.values.astype(np.float64))
    result = pairs.assign(
        left_out_because=quantity(left_out, "prompt", "why the pair is left out, or empty"),
        crossing=quantity(crossing, "prompt", "depth at which the last piece takes over", "block"),
        centre_of_part=quantity(centre, "prompt site", "layer about which a part's recoveries lie", "block"),
    )
    groups = _groups(pairs)
    result = result.assign(_means(result, groups, kept, settings)).assign_coords(
        group=text_coordinate(list(groups), "group", "words by number of pieces")
    )
    for part in (_twins(stages["twins"], settings), _erasure(stages["erasure"], settings)):
        result = result.merge(part, join="exact", compat="equals")
    n_layers = pairs.sizes["layer"]
    erasure = (
        settings.erasure_from,
        settings.erasure_to or max(settings.erasure_from + 1, round(9 / 32 * n_layers)),
    )
    result = result.assign(_fall(stages["erasure"], erasure, n_layers, settings))
    return write_json(
        result.assign_attrs(twin=settings.twin, prefix=settings.prefix),
        cautions=_cautions(stages, settings),
        words_by_pieces=dict(
            zip(
                map(str, stages["design"].n_pieces.values.tolist()),
                stages["design"]["words"].values.tolist(),
                strict=True,
            )
        ),
        erasure_depths=list(erasure),
        n_classes=len({case["label"] for case in read_json(stages["design"], "erased")}),
    )


def _cautions(stages: Earlier, settings: Any) -> list[str]:
    said = []
    if not stages["twins"].sizes:
        said.append(f"no word has both a single token and a form in pieces ({settings.twin}): no twins")
    elif (n := stages["twins"].sizes["word"]) < FEWEST_WORDS:
        said.append(
            f"only {n} word{'s have' if n > 1 else ' has'} both a single token and a form in pieces "
            f"({settings.twin}): too few for an interval"
        )
    kinds = set(stages["erasure"].case_kind.values.tolist()) if stages["erasure"].sizes else set()
    for kind, why in (
        ("within", "fewer than two pieces that begin three words each"),
        ("across", "too few words of one token"),
    ):
        if kind not in kinds:
            said.append(f"no erasure probe {kind} words: {why}")
    if not np.isfinite(stages["pairs"].recovered_part.values).all():
        said.append("this model adds no separate vectors of attention or MLP that could be put in")
    return said


def _groups(pairs: xr.Dataset) -> dict[str, np.ndarray]:
    """Rows by kind, and by kind and number of pieces."""
    kinds, pieces = pairs.kind.values, pairs.pieces.values
    groups = {str(kind): kinds == kind for kind in ("words", "made up") if (kinds == kind).any()}
    for kind in list(groups):
        for number in np.unique(pieces[kinds == kind]):
            groups[f"{kind}, {number} pieces"] = (kinds == kind) & (pieces == number)
    return groups


def _means(
    result: xr.Dataset, groups: dict[str, np.ndarray], kept: np.ndarray, settings: Any
) -> dict[str, xr.Variable]:
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)

    def by_group(values: np.ndarray) -> Interval:
        return stacked([mean(np.where(_row(kept, values), values, np.nan)[rows]) for rows in groups.values()])

    variables: dict[str, xr.Variable] = {}
    for name, dims, says, units in (
        ("recovered", "group piece depth", "recovery of the other word's prediction, mean", "1"),
        ("recovered_part", "group site layer", "recovery by one layer's part at the last piece, mean", "1"),
        (
            "recovered_whole_part",
            "group site",
            "recovery by this part of all layers, the other kept as it was, mean",
            "1",
        ),
        ("crossing", "group", "depth at which the last piece takes over, mean", "block"),
        ("centre_of_part", "group site", "layer about which the part's recoveries lie, mean", "block"),
    ):
        variables |= interval_variables(
            f"mean_{name}", by_group(result[name].values.astype(float)), dims, says, units
        )
    later = result.centre_of_part.values[:, 1] - result.centre_of_part.values[:, 0]
    variables |= interval_variables(
        "mlp_behind_attention",
        by_group(later),
        "group",
        "layers by which the MLP's part lies after attention's",
        "block",
    )
    crossing = np.where(kept, result.crossing.values, np.nan)
    real, invented = (groups.get(kind, np.zeros(len(kept), bool)) for kind in ("words", "made up"))
    gap = bootstrap_difference(
        crossing[real],
        crossing[invented],
        seed=settings.seed,
        level=settings.level,
        resamples=settings.resamples,
    )
    return variables | interval_variables(
        "crossing_gap", gap, "", "crossing of words less that of made-up ones", "block"
    )


def _row(kept: np.ndarray, values: np.ndarray) -> np.ndarray:
    return kept.reshape(-1, *[1] * (values.ndim - 1))


def _twins(twins: xr.Dataset, settings: Any) -> xr.Dataset:
    if not twins.sizes:
        return xr.Dataset()

    def mean(values: np.ndarray) -> Interval:
        found = bootstrap_mean(values, seed=settings.seed, level=settings.level, resamples=settings.resamples)
        return found if len(values) >= FEWEST_WORDS else found.without_ends()

    above = (twins.own_similarity - twins.other_similarity).values
    found = twins.found_twin.values.astype(float)
    variables = (
        interval_variables(
            "mean_likeness", mean(above), "form depth", "likeness to the single token above other words'"
        )
        | interval_variables(
            "mean_found_twin", mean(found), "form depth", "share whose nearest single token is the word"
        )
        | interval_variables(
            "likeness_gain",
            mean(above[:, 0] - above[:, 1]),
            "depth",
            "likeness less that behind another first piece",
        )
    )
    return twins.assign(variables)


def _erasure(cases: xr.Dataset, settings: Any) -> xr.Dataset:
    if not cases.sizes:
        return xr.Dataset()
    mean = partial(bootstrap_mean, seed=settings.seed, level=settings.level, resamples=settings.resamples)
    kinds = list(dict.fromkeys(cases.case_kind.values.tolist()))
    curves = [mean(_by_token(cases, kind)) for kind in kinds]
    return cases.assign(
        interval_variables(
            "mean_told", stacked(curves), "case_kinds depth", "probability given to the piece before"
        )
    ).assign_coords(case_kinds=text_coordinate(kinds, "case_kinds", "within a word, or between words"))


def _by_token(cases: xr.Dataset, kind: str) -> np.ndarray:
    """Mean over contexts of each token and class: what is independent is the word, not where it stands."""
    here = cases.isel(token=cases.case_kind.values == kind)
    keys = np.unique(np.stack([here.case_class.values, here.case_token.values]), axis=1, return_inverse=True)[
        1
    ].ravel()
    return np.stack([here.told.values[keys == key].mean(axis=0) for key in range(keys.max() + 1)])


def _fall(cases: xr.Dataset, depths: tuple[int, int], n_layers: int, settings: Any) -> dict[str, xr.Variable]:
    """How far the probability falls, within words less across."""
    falls = {}
    for kind in ("within", "across"):
        there = cases.sizes and (cases.case_kind.values == kind).any() and depths[1] <= n_layers
        told = _by_token(cases, kind) if there else np.full((1, n_layers + 1), np.nan)
        falls[kind] = told[:, min(depths[0], n_layers)] - told[:, min(depths[1], n_layers)]
    kept = {"seed": settings.seed, "level": settings.level, "resamples": settings.resamples}
    excess = bootstrap_difference(falls["within"], falls["across"], **kept)
    return (
        interval_variables(
            "fall_within", bootstrap_mean(falls["within"], **kept), "", "fall of the probe, within words"
        )
        | interval_variables(
            "fall_across", bootstrap_mean(falls["across"], **kept), "", "fall of the probe, between words"
        )
        | interval_variables("erasure", excess, "", "fall within words less that between words")
    )
