"""From patched pairs, twins and probes to crossings, centroids, likeness and the fall of the probes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, measure, named, side_by_side
from layerscope.experiments.word_formation.settings import Settings
from layerscope.maths.centroid import centroid
from layerscope.maths.transitions import last_rise_through
from layerscope.results.schema import quantity, read_json, write_json

FEWEST_WORDS = 6
"""Words with two forms below which nothing about them has an interval: of four that agree, resamples agree too."""
KINDS = ("words", "made up")
_PROBES = ("within", "across")


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Recoveries, crossings and centroids by number of pieces, likeness to twins, and the fall of the probes."""
    pairs, cases = _crossings(stages["pairs"], settings), stages["erasure"]
    depths = settings.erasure_depths(pairs.sizes["layer"])
    parts = [
        pairs,
        _means(pairs, settings),
        _twins(stages["twins"], settings),
        _erasure(cases, settings),
        _fall(cases, depths, pairs.sizes["layer"], settings),
    ]
    counted, erased = stages["design"], read_json(stages["design"], "erased")
    return write_json(
        xr.merge(parts, join="exact", compat="equals").assign_attrs(
            twin=settings.twin, prefix=settings.prefix
        ),
        cautions=list(_cautions(stages, settings)),
        words_by_pieces={
            str(int(pieces)): int(words)
            for pieces, words in zip(counted.n_pieces, counted["words"], strict=True)
        },
        erasure_depths=list(depths),
        n_classes=len({case["label"] for case in erased}),
    )


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Recovery by the last piece's state, with that of made-up words for null."""
    made_up = "made up" in result.group
    cell = {"piece": "last piece"}
    return {
        "joined": measure(
            result,
            "mean_recovered",
            label="recovery by a word's last piece",
            sense="the last piece's state alone carries which word was read",
            questions="where information moves",
            null=result.mean_recovered.sel(group="made up", **cell) if made_up else None,
            group="words",
            **cell,
        )
    }


def _cautions(stages: Earlier, settings: Settings) -> Iterator[str]:
    if not stages["twins"].sizes:
        yield f"no word has both a single token and a form in pieces ({settings.twin}): no twins"
    elif (n := stages["twins"].sizes["word"]) < FEWEST_WORDS:
        yield (
            f"only {n} word{'s have' if n > 1 else ' has'} both a single token and a form in pieces "
            f"({settings.twin}): too few for an interval"
        )
    cases = stages["erasure"]
    for kind, why in zip(
        _PROBES,
        ("fewer than two pieces that begin three words each", "too few words of one token"),
        strict=True,
    ):
        if not len(_cases_of(cases, kind)):
            yield f"no erasure probe {kind} words: {why}"
    if not stages["pairs"].recovered_part.notnull().all():
        yield "this model adds no separate vectors of attention or MLP that could be put in"


# -- pairs ------------------------------------------------------------------------------------------------


def _crossings(pairs: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Where each pair's last piece takes over, about which layers its parts work, and why a pair is left out."""
    rows = pairs.recovered.astype(np.float64).to_numpy()
    crossing = [last_rise_through(last - earlier, 0.0) for earlier, last in rows]
    centre = centroid(pairs.recovered_part.astype(np.float64).to_numpy())
    apart = f"predictions less than {settings.smallest:g} nats apart"
    return pairs.assign(
        left_out_because=quantity(
            np.where(pairs.apart < settings.smallest, apart, ""),
            "prompt",
            "why the pair is left out, or empty",
        ),
        crossing=quantity(np.array(crossing), "prompt", "depth at which the last piece takes over", "layer"),
        centre_of_part=quantity(centre, "prompt site", "layer about which a part's recoveries lie", "layer"),
    )


def _groups(pairs: xr.Dataset) -> dict[str, np.ndarray]:
    """Rows by kind, and by kind and number of pieces."""
    groups = {kind: np.flatnonzero(pairs.kind == kind) for kind in KINDS if (pairs.kind == kind).any()}
    for kind, rows in list(groups.items()):
        for number in np.unique(pairs.pieces[rows]):
            groups[f"{kind}, {number} pieces"] = rows[pairs.pieces.to_numpy()[rows] == number]
    return groups


def _means(pairs: xr.Dataset, settings: Settings) -> xr.Dataset:
    kept, centre = pairs.left_out_because == "", pairs.centre_of_part
    later = centre.isel(site=1, drop=True) - centre.isel(site=0, drop=True)
    part, over_all = (
        "recovery by one layer's part at the last piece, mean",
        "recovery by this part of all layers",
    )
    columns = (
        (pairs.recovered, "mean_recovered", "recovery of the other word's prediction, mean", "1"),
        (pairs.recovered_part, "mean_recovered_part", part, "1"),
        (
            pairs.recovered_whole_part,
            "mean_recovered_whole_part",
            f"{over_all}, the other kept as it was, mean",
            "1",
        ),
        (pairs.crossing, "mean_crossing", "depth at which the last piece takes over, mean", "layer"),
        (centre, "mean_centre_of_part", "layer about which the part's recoveries lie, mean", "layer"),
        (later, "mlp_behind_attention", "layers by which the MLP's part lies after attention's", "layer"),
    )
    found = {}
    for group, rows in _groups(pairs).items():
        over = Over(pairs.isel(prompt=rows), settings, rows="prompt")
        found[group] = xr.merge(
            over.mean(
                named(values.where(kept).isel(prompt=rows), name, said, unit), draws=name == "mean_recovered"
            )
            for values, name, said, unit in columns
        )
    return xr.merge([side_by_side(found, "group", "words by number of pieces"), _gap(pairs, kept, settings)])


def _gap(pairs: xr.Dataset, kept: xr.DataArray, settings: Settings) -> xr.Dataset:
    """How much later words cross than made-up ones."""
    crossing = named(
        pairs.crossing.where(kept), "crossing_gap", "crossing of words less that of made-up ones", "layer"
    )
    each = [np.flatnonzero(pairs.kind == kind) for kind in KINDS]
    (real, a), (invented, b) = (
        (Over(pairs.isel(prompt=rows), settings, rows="prompt"), crossing.isel(prompt=rows)) for rows in each
    )
    return real.difference(a, invented, b)


# -- twins ------------------------------------------------------------------------------------------------


def _twins(twins: xr.Dataset, settings: Settings) -> xr.Dataset:
    if not twins.sizes:
        return xr.Dataset()
    over = Over(twins, settings, rows="word")
    above = twins.own_similarity - twins.other_similarity
    columns = (
        (above, "mean_likeness", "likeness to the single token above other words'"),
        (twins.found_twin, "mean_found_twin", "share whose nearest single token is the word"),
        (
            above.isel(form=0, drop=True) - above.isel(form=1, drop=True),
            "likeness_gain",
            "likeness less that behind another first piece",
        ),
    )
    found = xr.merge(
        over.mean(named(values, name, said), together="depth" if name == "likeness_gain" else ())
        for values, name, said in columns
    )
    if over.n < FEWEST_WORDS:
        ends = [name for name in found.data_vars if str(name).endswith(("_low", "_high"))]
        found = found.assign({name: found[name].where(False) for name in ends})
    return twins.merge(found)


# -- erasure ----------------------------------------------------------------------------------------------


def _cases_of(cases: xr.Dataset, kind: str) -> np.ndarray:
    """Rows of cases of one kind, those of one class and token together."""
    if not cases.sizes:
        return np.zeros(0, dtype=int)
    rows = np.flatnonzero(cases.case_kind == kind)
    return rows[np.lexsort((cases.case_token[rows], cases.case_class[rows]))]


def _over_words(cases: xr.Dataset, rows: np.ndarray, settings: Settings) -> tuple[xr.Dataset, Over]:
    """Cases and their units: what is independent is the word, not the context in which it stands."""
    here = cases.isel(token=rows)
    both = np.stack([here.case_class.to_numpy(), here.case_token.to_numpy()])
    number = np.unique(both, axis=1, return_inverse=True)[1].ravel()
    here = here.assign_coords(case_word=("token", number))
    return here, Over(here, settings, rows="case_word")


def _erasure(cases: xr.Dataset, settings: Settings) -> xr.Dataset:
    if not cases.sizes:
        return xr.Dataset()
    curves = {}
    for kind in map(str, dict.fromkeys(cases.case_kind.to_numpy().tolist())):
        here, over = _over_words(cases, _cases_of(cases, kind), settings)
        curves[kind] = over.mean(named(here.told, "mean_told", "probability given to the piece before"))
    return cases.merge(side_by_side(curves, "case_kinds", "within a word, or between words"))


def _fall(cases: xr.Dataset, depths: tuple[int, int], n_layers: int, settings: Settings) -> xr.Dataset:
    """How far the probe's probability falls, within words less between words; unknown where a kind has no cases."""
    falls = {kind: _fall_of(cases, kind, depths, n_layers, settings) for kind in _PROBES}
    (within, own), (across, other) = falls.values()
    return xr.merge(
        [
            within.mean(named(own, "fall_within", "fall of the probe, within words")),
            across.mean(named(other, "fall_across", "fall of the probe, between words")),
            within.difference(
                named(own, "erasure", "fall within words less that between words"), across, other
            ),
        ]
    )


def _fall_of(
    cases: xr.Dataset, kind: str, depths: tuple[int, int], n_layers: int, settings: Settings
) -> tuple[Over, xr.DataArray]:
    rows = _cases_of(cases, kind)
    if not len(rows) or depths[1] > n_layers:
        nobody = xr.Dataset(coords={"case_word": ("token", [0])})
        return Over(nobody, settings, rows="case_word"), xr.DataArray([np.nan], dims="word")
    here, over = _over_words(cases, rows, settings)
    told = over.units(here.told)
    first, last = (told.isel(depth=depth, drop=True) for depth in depths)
    return over, first - last
