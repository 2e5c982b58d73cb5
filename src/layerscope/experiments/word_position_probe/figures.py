"""Pictures of what word_position_probe found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import text_coordinate
from layerscope.experiments.word_position_probe.conclude import FEWEST_CASES
from layerscope.plots.curves import curve_over_depth
from layerscope.plots.guess_bars import guess_bars
from layerscope.plots.theme import leading
from layerscope.results.schema import read_json

_READ_AT = {
    "sentences": "Sentences are read at the full stop of each sentence of a paragraph",
    "names": "Names are read at their last piece",
}

_DECODABLE, _GAIN, _STEERED = (
    "Is word index decodable beyond position?",
    "What do states add to simpler guessers?",
    "Does steering the index last?",
)
_CONTROLS = {
    "untrained": "untrained twin",
    "types": "counts of token types",
    "shuffled": "shuffled boundaries",
}


def draw(result: xr.Dataset) -> dict[str, Any]:
    """Figures by name."""
    tasks = result.task.values.tolist()
    figures = {
        _DECODABLE: curve_over_depth(
            _above_position(result, [t for t in ("last", "untrained") if t in tasks]),
            caption="0: no better than position allows; 1: always right. Bands: intervals over test prompts."
            + _few(result, tasks),
        ),
        **_gains(result),
        "Beside counts of token types and shuffled boundaries": curve_over_depth(
            _above_position(result, [t for t in ("last", "types", "shuffled") if t in tasks]),
            caption="Types: a probe that sees only how often each token came so far. Shuffled: words end elsewhere."
            + _few(result, tasks),
        ),
        "First pieces, and words of equal length": curve_over_depth(
            _pieces(result),
            caption="The last piece often gives away its word's length, so part of the index without any counting.",
        ),
        "Other prefixes, with and without full stop": curve_over_depth(
            _above_position(result, ["last", "unanchored", "onto unanchored", "onto anchored"]),
            caption="Behind each prefix, probes trained there; and probes trained behind the other."
            + _few(result, ["last", "unanchored", "onto unanchored", "onto anchored"]),
        ),
        "Right guesses, and what position alone allows": curve_over_depth(
            _accuracy(result),
            caption="The post's measure. Dashed: the exact ceiling of a guesser that sees the position only.",
        ),
    }
    others = [task for task in _READ_AT if task in tasks]
    if others:
        figures[f"Is the index of {' and '.join(others)} decodable?"] = curve_over_depth(
            _above_position(result, others),
            caption=" ".join(f"{_READ_AT[t]}: {int(result.score_cases.sel(task=t))} cases." for t in others)
            + _few(result, others),
        )
    figures["What the probe guesses, by word and position"] = _bars(result)
    if "decoded_shift" in result:
        figures |= _moved(result)
    if "score_lost" in result and np.isfinite(result.score_lost_low.values).any():
        figures["What is lost without chosen heads"] = curve_over_depth(
            _lost(result),
            caption="Score with all heads less score with those mean-ablated that attend most to beginnings of words, "
            "or to the anchor."
            + " Random: as many other heads of the same layers, drawn without their intervals."
            * any(str(name).startswith("random") for name in result.heads_out.values),
        )
    return leading(figures, (_DECODABLE, _GAIN, _STEERED))


def _gains(result: xr.Dataset) -> dict[str, Any]:
    """What states score beyond each control, beside it on the same prompts."""
    if not np.isfinite(result.gain).any():
        return {}
    lines = _lines(
        result, "gain", "control", {str(name): _CONTROLS[str(name)] for name in result["control"].values}
    )
    lines["value"].attrs = {"long_name": "score of the states less the control's", "units": "1"}
    return {
        _GAIN: curve_over_depth(
            _at(lines, 0.0, "no gain"),
            caption="Score of the states less that of each control, on the same test prompts. Only above counts of "
            "token types does a state hold more than a sum of embeddings.",
        )
    }


def _few(result: xr.Dataset, tasks: Sequence[str]) -> str:
    """Why lines have no bands, where some have none."""
    without = [task for task in tasks if np.isnan(result.score_low.sel(task=task).values).all()]
    return f" Lines without a band: fewer than {FEWEST_CASES} test cases." if without else ""


def _at(lines: xr.Dataset, level: float, name: str) -> xr.Dataset:
    """The lines with a dashed one at a level."""
    axis = next(str(dimension) for dimension in lines["value"].dims if dimension != "line")
    return lines.assign(
        null=xr.DataArray(np.full(lines.sizes[axis], level), dims=(axis,), attrs={"name": name})
    )


def _above_position(result: xr.Dataset, tasks: Sequence[str]) -> xr.Dataset:
    return _at(_scores(result, tasks, "score"), 0.0, "position alone")


def _scores(result: xr.Dataset, tasks: Sequence[str], name: str) -> xr.Dataset:
    says = read_json(result, "says")
    return _lines(result, name, "task", {task: says[task] for task in tasks})


def _lines(result: xr.Dataset, name: str, dimension: str, labels: dict[str, str]) -> xr.Dataset:
    """Lines of a score with their intervals; one that is not known anywhere is not drawn."""
    known = {key for key in labels if np.isfinite(result[name].sel({dimension: key}).values).any()}
    labels = {key: text for key, text in labels.items() if key in known} or labels
    chosen = result.sel({dimension: list(labels)})
    columns = {"value": chosen[name], "low": chosen[f"{name}_low"], "high": chosen[f"{name}_high"]}
    axis = next(d for d in ("depth", "layer") if d in chosen[name].dims)
    plain = {
        key: (("line", axis), column.transpose(dimension, axis).values) for key, column in columns.items()
    }
    lines = xr.Dataset(
        plain,
        coords={"line": text_coordinate(list(labels.values()), "line", "line"), axis: chosen[axis].variable},
    )
    lines["value"].attrs = dict(chosen[name].attrs)
    return lines


def _pieces(result: xr.Dataset) -> xr.Dataset:
    lines = _above_position(result, ["last", "first"])
    matched = _lines(result, "matched_score", "word_task", {"last": "word, last piece, equal lengths"})
    if not np.isfinite(matched["value"].values).any():
        return lines
    both = xr.concat([lines.drop_vars("null"), matched], dim="line", join="exact")
    both["value"].attrs = lines["value"].attrs
    return both.assign(null=lines["null"])


def _accuracy(result: xr.Dataset) -> xr.Dataset:
    lines = _scores(
        result, ["last", "untrained"] if "untrained" in result.task.values else ["last"], "accuracy"
    )
    return _at(lines, float(result.ceiling.sel(task="last")), "what the position alone allows")


def _bars(result: xr.Dataset) -> Any:
    """The post's figure: guesses at one depth by true index and absolute position."""
    depth = int(result.attrs["causal_depth"])
    here = result.isel(token=result.case_task.values == "last")
    index, place = here.case_index.values, here.case_position.values
    units = int(index.max()) + 1
    counts = np.zeros((units, int(place.max()) + 1, units), dtype=np.int64)
    np.add.at(counts, (index, place, here.probability.values[:, depth].argmax(axis=1)), 1)
    return guess_bars(
        counts,
        classes=[f"word {number + 1}" for number in range(units)],
        place_title="position of the word's last token, counted from the end of the prefix",
        first_place=1,
        caption=f"At depth {depth}; rows are true words. Compare bars of one column: equal position, different word. "
        "Outlined in red: the right guess. Bars of fewer than three words are left out.",
    )


def _moved(result: xr.Dataset) -> dict[str, Any]:
    labels = {"along the index": "along the index", "control": "as far, elsewhere"}
    depth = int(result.attrs["causal_depth"])
    figures = {
        _STEERED: curve_over_depth(
            _lines(result, "decoded_shift", "push", labels),
            caption=f"A word's state is steered one index on or back at depth {depth} and decoded later. 2 is the full "
            "effect; above “as far, elsewhere” it is the index that lasts.",
        )
    }
    if np.isfinite(result.attended_shift.values).any():
        figures["Which earlier words does a steered state read?"] = curve_over_depth(
            _lines(result, "attended_shift", "push", labels),
            caption="Mean over heads. Heads may move in opposite directions: the claim is about single ones.",
        )
    return figures


def _lost(result: xr.Dataset) -> xr.Dataset:
    names = [str(name) for name in result.heads_out.values]
    lines = _lines(result, "score_lost", "heads_out", {name: name for name in names})
    random = xr.DataArray([name.startswith("random") for name in names], dims="line")
    for end in ("low", "high"):  # five bands over one another would hide the two that matter
        lines[end] = lines[end].where(~random)
    return lines
