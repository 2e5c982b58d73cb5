"""Trigger examples over the layers: what contexts share, what tokens carry, what values promote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.evidence.curves import as_curve
from layerscope.experiments.trigger_examples.conclude.topics import sees_topics
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.panels import rows_by_category
from layerscope.plots.theme import leading

_ENDING, _WITHOUT, _CARRIED = (
    "Do contexts of a key end alike?",
    "What is left without the last token?",
    "How much do the last tokens carry?",
)
_BANDS = "Mean over keys, bootstrap bands over keys."
_NO_BAND = "Where all keys of a layer agree there is no band, though few keys may agree by chance."


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by what they show; those of which nothing is known are left out."""
    figures = {
        _ENDING: _ending(result),
        _WITHOUT: _without_last(result),
        _CARRIED: _carried(result),
        "Are contexts alike before their last token?": _coherence(result),
        "Activation carried by the last tokens": _kept(result),
        "How many last tokens do keys need?": _radius(result),
        "Does the token that a value promotes follow?": _agreement(result),
        "Rank of the next token by value": _percentile(result),
        "How many keys are active?": _active(result),
        "Do outputs promote what no value promotes?": _unmatched(result),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    return leading(drawn, (_ENDING, _WITHOUT, _CARRIED))


def _lines(result: xr.Dataset, names: Mapping[str, str], long_name: str) -> xr.Dataset:
    """Several curves as one with a `row` for each; `names` gives the label of each variable."""
    curves = [as_curve(result, name) for name in names]
    for curve in curves:
        curve["value"].attrs = {"long_name": long_name, "units": "1"}
    labels = text_coordinate(list(names.values()), "row", "what is shown")
    both = xr.concat(curves, dim="row", join="exact", combine_attrs="override").assign_coords(row=labels)
    both["value"].attrs = {"long_name": long_name, "units": "1"}
    return both


def _named(curve: xr.Dataset, name: str, long_name: str, *, null: str) -> xr.Dataset:
    """A single curve with names for the legend: its own, and that of its null, which stays apart."""
    lines = curve[["value", "low", "high"]].expand_dims("row")
    lines = lines.assign_coords(row=text_coordinate([name], "row", "what is shown"))
    lines["value"].attrs = {"long_name": long_name, "units": "1"}
    return lines.assign(null=curve["null"].assign_attrs(name=null))


def _with_tuned(curve: xr.Dataset, result: xr.Dataset, name: str, long_name: str) -> xr.Dataset:
    """The same read by a tuned lens as a second line, where there is one."""
    if name not in result or not _known(result, name):
        return curve
    null = curve["null"]
    names = {name.removesuffix("_tuned"): "keys, logit lens", name: "keys, tuned lens"}
    return _lines(result, names, long_name).assign(null=null)


def _known(result: xr.Dataset, name: str) -> bool:
    return bool(np.isfinite(result[name].values).any())


def _ending(result: xr.Dataset) -> Any:
    if not _known(result, "mean_shared_last_token"):
        return None
    names = {
        "mean_shared_last_token": "same last token",
        "mean_shared_bigram": "same two last tokens",
        "mean_shared_trigram": "same three last tokens",
    }
    lines = _lines(result, names, "share of pairs of contexts")
    for end in ("low", "high"):  # bands of the other lines would cover one another
        lines[end] = lines[end].where(lines.row == lines.row[0])
    null = result.null_shared_last_token.reset_coords(drop=True).assign_attrs(name="same last token, random")
    figure = curve_over_depth(
        lines.assign(null=null),
        caption=f"Pairs of a key's top contexts. High and equal lines: keys for phrases; a high first line alone: keys "
        f"for tokens. {_BANDS}",
    )
    return figure.update_yaxes(rangemode="tozero")


def _coherence(result: xr.Dataset) -> Any:
    if not _known(result, "mean_coherence") or sees_topics(result) is False:
        return None
    curve = as_curve(result, "mean_coherence", null=result.null_coherence)
    curve = _named(curve, "keys", "cosine of rare tokens", null="random contexts")
    return curve_over_depth(
        curve, caption=f"Random contexts of the same corpus. Pairs from one passage are left out. {_BANDS}"
    )


def _without_last(result: xr.Dataset) -> Any:
    if not _known(result, "mean_kept_without_last"):
        return None
    names = {
        "mean_kept_in_window": "nothing replaced, window alone",
        "mean_kept_without_last": "last token replaced",
    }
    lines = _lines(result, names, "share of the activation")
    nothing = result.mean_kept.sel(kept_tokens=0, drop=True).reset_coords(drop=True)
    lines["null"] = nothing.assign_attrs(name="every token replaced")
    return curve_over_depth(
        lines,
        caption="Replaced by another passage's tokens. 1: as in the whole passage. " + _BANDS,
    )


def _carried(result: xr.Dataset) -> Any:
    """Lines without bands, which would cover one another."""
    if not _known(result, "mean_kept"):
        return None
    lengths = result.kept_tokens.values[1:]
    lines = xr.Dataset({"value": result.mean_kept.sel(kept_tokens=lengths).reset_coords(drop=True)})
    lines = lines.rename(kept_tokens="row").transpose("row", "layer")
    lines = lines.assign_coords(
        row=text_coordinate([_last(int(length)) for length in lengths], "row", "what is kept")
    )
    lines["value"].attrs = {"long_name": "share of the activation", "units": "1"}
    return curve_over_depth(
        lines,
        caption="All before them is replaced by another passage's text. 1: as in the whole passage. Mean over keys. "
        "The higher the lines for few tokens, the shallower the keys.",
    )


def _last(length: int) -> str:
    return f"last {length} token{'s' if length > 1 else ''}"


def _by_length(result: xr.Dataset, name: str, long_name: str) -> xr.Dataset:
    """A panel for each number of last tokens: as lines of one panel their bands would cover one another."""
    lengths = result.kept_tokens.values[1:]
    columns = {
        end: result[f"{name}{suffix}"]
        .sel(kept_tokens=lengths)
        .rename(kept_tokens="category")
        .reset_coords(drop=True)
        for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    labels = [_last(int(length)) for length in lengths]
    panels = xr.Dataset(columns).assign_coords(category=text_coordinate(labels, "category", "what is kept"))
    panels["value"].attrs = {"long_name": long_name, "units": "1"}
    return panels.expand_dims("row").assign_coords(row=text_coordinate(["keys"], "row", "what is shown"))


def _kept(result: xr.Dataset) -> Any:
    if not _known(result, "mean_kept"):
        return None
    return rows_by_category(
        _by_length(result, "mean_kept", "share of the activation"),
        caption=f"All before them is replaced by another passage's text. 1: as in the whole passage. {_BANDS}",
    ).update_layout(showlegend=False)


def _radius(result: xr.Dataset) -> Any:
    if not _known(result, "mean_within"):
        return None
    return rows_by_category(
        _by_length(result, "mean_within", "share of keys"),
        caption=f"A key needs the fewest last tokens that carry {float(result.attrs['kept_share']):.0%} of its "
        f"activation. {_BANDS} {_NO_BAND}",
    ).update_layout(showlegend=False)


def _agreement(result: xr.Dataset) -> Any:
    if not _known(result, "mean_agreement"):
        return None
    curve = as_curve(result, "mean_agreement", null=result.null_agreement)
    curve = _named(curve, "keys", "share of contexts", null="its frequency in the corpus")
    curve = _with_tuned(curve, result, "mean_agreement_tuned", "share of contexts")
    return curve_over_depth(
        curve,
        caption=f"Contexts followed by the token that the value promotes most (logit lens). {_BANDS} {_NO_BAND}",
    ).update_yaxes(rangemode="tozero")


def _percentile(result: xr.Dataset) -> Any:
    if not _known(result, "mean_next_percentile"):
        return None
    chance = xr.full_like(result.mean_next_percentile, 0.5)
    curve = as_curve(result, "mean_next_percentile", null=chance)
    height = "share of tokens of like frequency ranked lower"
    curve = _named(curve, "keys", height, null="chance")
    curve = _with_tuned(curve, result, "mean_next_percentile_tuned", height)
    return curve_over_depth(curve, caption=_BANDS)


def _active(result: xr.Dataset) -> Any:
    names = {"mean_active_share": "above 0", "mean_effective_share": "that the output is spread over"}
    names = {name: label for name, label in names.items() if _known(result, name)}
    if not names:
        return None
    lines = _lines(result, names, "share of a layer's keys")
    caption = "Spread over: keys that would spread the output as far if all contributed alike. "
    return curve_over_depth(lines, caption=caption + "Mean over passages, bootstrap bands.").update_yaxes(
        rangemode="tozero"
    )


def _unmatched(result: xr.Dataset) -> Any:
    if not _known(result, "mean_unmatched_share"):
        return None
    curve = as_curve(result, "mean_unmatched_share", null=result.mean_unmatched_by_chance)
    curve = _named(
        curve, "outputs", "share of outputs that promote what no value does", null="another token's output"
    )
    figure = curve_over_depth(
        curve,
        caption="The output's top token is no active value's top token (logit lens). Null: the output at another token "
        "of the passage. Mean over passages, bootstrap bands.",
    )
    return figure.update_yaxes(range=[-0.03, 1.03])
