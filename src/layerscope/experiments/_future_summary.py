"""From kept effects to shares of present and future by depth, where they cross, and who reads how far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope.evidence.coordinates import groups_along, number_coordinate, text_coordinate
from layerscope.evidence.distances import cautions_of_unread
from layerscope.evidence.quantities import interval_variables
from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import Interval, bootstrap_mean, interval_of_draws, resampled_counts
from layerscope.maths.depth_profile import apart, last_above
from layerscope.maths.max_statistic import compare_pairs
from layerscope.results.schema import quantity, write_json

if TYPE_CHECKING:
    from layerscope.experiments.future_use import Settings

READERS = ("its own prediction", "later predictions")
_HALF = 0.5


def summarised(effects: xr.Dataset, settings: Settings) -> xr.Dataset:
    """The result: everything that was kept, and what follows from it."""
    ground = _Ground(effects, settings)
    variables = _means(ground) | _shares(ground) | _crossings(ground) | _readers(ground)
    result = effects.assign(variables).assign_coords(
        used_passage=xr.Variable(("used_passage",), list(ground.rows), {"long_name": "passage with targets"}),
        reader=text_coordinate(READERS, "reader", "whose prediction"),
        readers=text_coordinate(list(ground.readers), "readers", "which later tokens"),
        horizon=number_coordinate(effects.distance.values[1:], "horizon", "later tokens counted [tokens]"),
    )
    result = result.assign_attrs(
        corruption=settings.corruption, passages=ground.units, horizon=int(effects.distance[-1])
    )
    return write_json(result, cautions=_cautions(result))


class _Ground:
    """Means over the tokens and samples of each passage, and how intervals are made."""

    def __init__(self, effects: xr.Dataset, settings: Settings) -> None:
        self.settings = settings
        self.rows = groups_along(effects, "token_passage")
        self.units = len(self.rows)
        self.divergence = self._by_passage(effects.divergence.values)  # [passage perturbation depth distance]
        self.loss = self._by_passage(effects.loss.values)
        horizon = self.divergence.shape[-1] - 1
        self.near = min(settings.near, horizon)
        ranges = [(1, horizon)]
        ranges += [(1, self.near), (self.near + 1, horizon)] if horizon > self.near else []
        self.readers = {_said(a, b): slice(a, b + 1) for a, b in ranges}
        self._counts = resampled_counts(self.units, seed=settings.seed, resamples=settings.resamples)

    def _by_passage(self, values: np.ndarray) -> np.ndarray:
        return np.stack([values[places].mean(axis=(0, 2), dtype=np.float64) for places in self.rows.values()])

    def sums(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean over passages of [passage ...], and of every resample of them."""
        return values.mean(axis=0), np.tensordot(self._counts / self.units, values, axes=1)

    def interval(self, value: Any, draws: np.ndarray) -> Interval:
        """The interval of a number that was computed from draws; it holds its value."""
        found = interval_of_draws(np.asarray(value), draws, units=self.units, level=self.settings.level)
        low, high = np.minimum(found.low, found.value), np.maximum(found.high, found.value)
        return Interval(found.value, np.asarray(low), np.asarray(high), found.n)

    @property
    def how(self) -> dict[str, Any]:
        """How means get their intervals."""
        s = self.settings
        return {"seed": s.seed, "level": s.level, "resamples": s.resamples}


def _said(first: int, last: int) -> str:
    """How a range of later tokens is called."""
    return f"{first} to {last} tokens on" if last > first else f"{first} token{'s' if first > 1 else ''} on"


def _split(values: np.ndarray) -> np.ndarray:
    """Effects by distance as present and future: [... distance] to [... reader]."""
    return np.stack([values[..., 0], values[..., 1:].sum(axis=-1)], axis=-1)


def _share(split: np.ndarray) -> np.ndarray:
    """Future over present and future; NaN where neither loses anything, or losses cancel."""
    total = split.sum(axis=-1)
    return np.asarray(divide(split[..., 1], np.where(total > 0, total, 0.0)))


def _means(ground: _Ground) -> dict[str, xr.Variable]:
    by_distance = ground.divergence[:, 0]
    first, others = by_distance[..., 1], by_distance[..., 1:].sum(axis=-1)
    (value, draws), (whole, whole_draws) = ground.sums(first), ground.sums(others)
    return (
        interval_variables(
            "effect",
            bootstrap_mean(_split(ground.divergence), **ground.how),
            "perturbation depth reader",
            "divergence that corruption brings about",
            "nat",
        )
        | interval_variables(
            "lost",
            bootstrap_mean(_split(ground.loss), **ground.how),
            "perturbation depth reader",
            "log-probability of actual next tokens that is lost",
            "nat",
        )
        | interval_variables(
            "by_distance",
            bootstrap_mean(by_distance, **ground.how),
            "depth distance",
            "divergence that corruption brings about",
            "nat",
        )
        | interval_variables(
            "on_the_next_token",
            ground.interval(divide(value, whole), divide(draws, whole_draws)),
            "depth",
            "share of the future effect that falls on the very next token's prediction",
        )
    )


def _shares(ground: _Ground) -> dict[str, xr.Variable]:
    split = _split(ground.divergence)
    means, draws = ground.sums(split)
    share, drawn = _share(means), _share(draws)
    of_each = _share(split)  # [passage perturbation depth]
    p = compare_pairs(of_each[:, 0, :-1] - of_each[:, 1, :-1], seed=ground.settings.seed)
    lost, lost_draws = ground.sums(_split(ground.loss))
    variables = interval_variables(
        "future_share",
        ground.interval(share, drawn),
        "perturbation depth",
        "share of the effect that falls on later predictions",
    )
    variables |= interval_variables(
        "future_share_of_loss",
        ground.interval(_share(lost), _share(lost_draws)),
        "perturbation depth",
        "share of the lost log-probability that falls on later predictions",
    )
    variables |= interval_variables(
        "share_less_control",
        ground.interval(share[0] - share[1], drawn[:, 0] - drawn[:, 1]),
        "depth",
        "future share, less that of a random change of the same length",
    )
    # At the last depth both shares are 0 by construction: it is no comparison.
    variables["share_less_control_p"] = quantity(
        np.append(p, np.nan), "depth", "p of the difference, adjusted for all depths"
    )
    variables["passage_share"] = quantity(
        of_each[:, 0], "used_passage depth", "share of one passage's effect that falls on later predictions"
    )
    return variables


def _crossings(ground: _Ground) -> dict[str, xr.Variable]:
    """Where the future's share falls below half for good: in all, by log-probability, and by horizon."""
    corrupted, control = (_split(ground.divergence[:, one]) for one in (0, 1))
    present, later = ground.divergence[:, 0, :, :1], ground.divergence[:, 0, :, 1:].cumsum(axis=-1)
    upto = np.stack([np.broadcast_to(present, later.shape), later], axis=-1)

    def crossing(values: np.ndarray) -> Interval:  # [passage ... depth reader]
        value, draws = ground.sums(values)
        return ground.interval(last_above(_share(value), _HALF), last_above(_share(draws), _HALF))

    what = "depth from which most of the effect falls on the token's own prediction"
    return (
        interval_variables("crossing", crossing(corrupted), "", what, "block")
        | interval_variables(
            "crossing_of_loss",
            crossing(_split(ground.loss[:, 0])),
            "",
            f"{what}, by log-probability",
            "block",
        )
        | interval_variables("crossing_of_control", crossing(control), "", f"{what}, control", "block")
        | interval_variables("crossing_by_horizon", crossing(upto.swapaxes(1, 2)), "horizon", what, "block")
    )


def _readers(ground: _Ground) -> dict[str, xr.Variable]:
    """How deep a state is still read by near and by far later tokens."""
    by_distance = ground.divergence[:, 0]  # [passage depth distance]
    curves = np.stack([by_distance[..., part].sum(axis=-1) for part in ground.readers.values()], axis=1)
    (value, draws) = (_half_gone(part) for part in ground.sums(curves))  # [... readers]
    near = 1 if len(ground.readers) > 1 else 0
    what = "depth at which half of the effect on later predictions is gone"
    return interval_variables(
        "half_gone", ground.interval(value, draws), "readers", what, "block"
    ) | interval_variables(
        "far_less_near",
        ground.interval(
            apart(np.asarray(value[-1]), np.asarray(value[near])), apart(draws[:, -1], draws[:, near])
        ),
        "",
        f"{what}, far readers less near ones",
        "block",
    )


def _half_gone(curves: np.ndarray) -> np.ndarray:
    """Where a curve over depth stays below half of its largest height; NaN where it is 0 throughout."""
    largest = curves.max(axis=-1, keepdims=True)
    return last_above(divide(curves, largest), _HALF)


def _cautions(result: xr.Dataset) -> list[str]:
    cautions = []
    at_end = float(result.divergence.isel(depth=-1).isel(distance=slice(1, None)).max())
    if at_end > 0:
        cautions.append(
            f"After the last block no state can reach a later prediction, yet one moved by {at_end:.2g} nats: "
            "rounding, or a model that mixes tokens behind its last block."
        )
    out = int((result.left_out_because.values != "").sum())
    if out:
        cautions.append(f"{out} of {result.sizes['passage']} passages are left out.")
    if np.isnan(float(result.crossing)):
        cautions.append("Nothing that was put in changed any prediction: there is no share, and no crossing.")
    return [*cautions, *cautions_of_unread(result)]
