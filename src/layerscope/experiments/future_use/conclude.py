"""From kept effects to shares of present and future by depth, where they cross, and who reads how far."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import (
    Over,
    Resampled,
    groups_along,
    measure,
    named,
    number_coordinate,
    text_coordinate,
)
from layerscope.evidence.distances import cautions_of_unread
from layerscope.evidence.families import with_p
from layerscope.experiments.future_use.settings import Settings
from layerscope.maths.arrays import divide
from layerscope.maths.bootstrap import resampled_counts
from layerscope.maths.depth_profile import apart, last_above
from layerscope.maths.max_statistic import compare_pairs
from layerscope.maths.permutation import least_p_of_signs
from layerscope.maths.ratios import share
from layerscope.results.schema import quantity, write_json

READERS = ("its own prediction", "later predictions")
_HALF = 0.5
_PERMUTATIONS = 4095


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Effects on present and future by depth, their shares, and where these cross."""
    effects = stages["effects"]
    of = _Effects(effects, settings)
    found = xr.merge([*_means(of), *_shares(of), *_crossings(of), *_half_taken(of)])
    result = effects.merge(found).assign_coords(
        used_passage=xr.Variable(("used_passage",), of.over.names, {"long_name": "passage with targets"}),
        reader=text_coordinate(READERS, "reader", "whose prediction"),
        readers=text_coordinate(list(of.readers), "readers", "which later tokens"),
        horizon=number_coordinate(effects.distance.values[1:], "horizon", "later tokens counted [tokens]"),
    )
    result = result.assign_attrs(
        corruption=settings.corruption, passages=of.over.n, horizon=int(effects.distance[-1])
    )
    return write_json(result, cautions=_cautions(result))


class _Effects:
    """Means over the tokens and samples of each passage, and the same of every resample of passages."""

    def __init__(self, effects: xr.Dataset, settings: Settings) -> None:
        self.settings, self.over = settings, Over(effects, settings, rows="token_passage")
        rows = groups_along(effects, "token_passage").values()
        self.divergence, self.loss = (  # [passage perturbation depth distance]
            np.stack([values[places].mean(axis=(0, 2), dtype=np.float64) for places in rows])
            for values in (effects.divergence.values, effects.loss.values)
        )
        horizon = self.divergence.shape[-1] - 1
        near = min(settings.near, horizon)
        ranges = [(1, horizon)] + ([(1, near), (near + 1, horizon)] if horizon > near else [])
        self.readers = {_range_of_tokens(a, b): slice(a, b + 1) for a, b in ranges}
        self._counts = resampled_counts(self.over.n, seed=settings.seed, resamples=settings.resamples)

    def sums(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean over passages of [passage ...], and of every resample of them."""
        return values.mean(axis=0), np.tensordot(self._counts / self.over.n, values, axes=1)

    def mean(self, values: np.ndarray, name: str, long_name: str, *dims: str) -> xr.Dataset:
        """Mean over passages of nats [passage ...]."""
        return self.over.mean(named(values, name, long_name, "nat", dims=("passage", *dims)))

    def quantity(
        self,
        value: Any,
        again: np.ndarray,
        name: str,
        long_name: str,
        *dims: str,
        units: str = "1",
        **how: Any,
    ) -> xr.Dataset:
        """A number that was computed from sums, and again from each resample's, with its interval; `how` as in
        `Over.quantity`."""
        data = xr.DataArray(np.asarray(value), dims=dims)
        n = xr.full_like(data, self.over.n, dtype=np.int64)
        found = Resampled(data, xr.DataArray(again, dims=("draw", *dims)), n)
        return self.over.quantity(found.named(name, long_name, units), **how)


def _range_of_tokens(first: int, last: int) -> str:
    """How a range of later tokens is called."""
    return f"{first} to {last} tokens on" if last > first else f"{first} token{'s' if first > 1 else ''} on"


def _split(values: np.ndarray) -> np.ndarray:
    """Effects by distance as present and future: [... distance] to [... reader]."""
    return np.stack([values[..., 0], values[..., 1:].sum(axis=-1)], axis=-1)


def _future_share(split: np.ndarray) -> np.ndarray:
    """Future over present and future."""
    return share(split[..., 1], split.sum(axis=-1))


def _means(of: _Effects) -> list[xr.Dataset]:
    by_distance = of.divergence[:, 0]
    first, others = by_distance[..., 1], by_distance[..., 1:].sum(axis=-1)
    (value, draws), (whole, whole_draws) = of.sums(first), of.sums(others)
    moved, lost = (
        "divergence that corruption brings about",
        "log-probability of actual next tokens that is lost",
    )
    return [
        of.mean(_split(of.divergence), "effect", moved, "perturbation", "depth", "reader"),
        of.mean(_split(of.loss), "lost", lost, "perturbation", "depth", "reader"),
        of.mean(by_distance, "by_distance", moved, "depth", "distance"),
        of.quantity(
            divide(value, whole),
            divide(draws, whole_draws),
            "on_the_next_token",
            "share of the future effect that falls on the very next token's prediction",
            "depth",
        ),
    ]


def _shares(of: _Effects) -> list[xr.Dataset]:
    split = _split(of.divergence)
    means, draws = of.sums(split)
    whole, drawn = _future_share(means), _future_share(draws)
    lost, lost_draws = of.sums(_split(of.loss))
    each = _future_share(split)[:, 0]  # [passage depth]
    return [
        of.quantity(
            whole,
            drawn,
            "future_share",
            "share of the effect that falls on later predictions",
            "perturbation",
            "depth",
            draws=True,
        ),
        of.quantity(
            _future_share(lost),
            _future_share(lost_draws),
            "future_share_of_loss",
            "share of the lost log-probability that falls on later predictions",
            "perturbation",
            "depth",
        ),
        of.quantity(
            whole[0] - whole[1],
            drawn[:, 0] - drawn[:, 1],
            "share_less_control",
            "future share, less that of a random change of the same length",
            "depth",
            together="depth",
        ),
        xr.Dataset(_p_beside_control(_future_share(split), of)),
        xr.Dataset(
            {
                "passage_share": quantity(
                    each,
                    "used_passage depth",
                    "share of one passage's effect that falls on later predictions",
                )
            }
        ),
    ]


def _p_beside_control(of_each: np.ndarray, of: _Effects) -> dict[str, xr.Variable]:
    """At the last depth both shares are 0 by construction: it is no comparison."""
    gaps = of_each[:, 0, :-1] - of_each[:, 1, :-1]
    p = np.append(compare_pairs(gaps, seed=of.settings.seed, permutations=_PERMUTATIONS), np.nan)
    least = np.where(np.isnan(p), np.nan, least_p_of_signs(of.over.n, resamples=_PERMUTATIONS + 1))
    what = "p of the difference, adjusted for all depths"
    return with_p("share_less_control", ("depth",), p, least, what, called="share_less_control_p")


def _crossings(of: _Effects) -> list[xr.Dataset]:
    """Where the future's share falls below half for good: in all, by log-probability, and by horizon."""
    corrupted, control = (_split(of.divergence[:, one]) for one in (0, 1))
    present, later = of.divergence[:, 0, :, :1], of.divergence[:, 0, :, 1:].cumsum(axis=-1)
    upto = np.stack([np.broadcast_to(present, later.shape), later], axis=-1)
    what = "depth from which most of the effect falls on the token's own prediction"

    def crossing(values: np.ndarray, name: str, long_name: str, *dims: str) -> xr.Dataset:
        value, draws = of.sums(values)  # [passage ... depth reader]
        found = last_above(_future_share(value), _HALF), last_above(_future_share(draws), _HALF)
        return of.quantity(*found, name, long_name, *dims, units="layer")

    return [
        crossing(corrupted, "crossing", what),
        crossing(_split(of.loss[:, 0]), "crossing_of_loss", f"{what}, by log-probability"),
        crossing(control, "crossing_of_control", f"{what}, control"),
        crossing(upto.swapaxes(1, 2), "crossing_by_horizon", what, "horizon"),
    ]


def _half_taken(of: _Effects) -> list[xr.Dataset]:
    """At which depth near and far later tokens have taken half of what they take from a state."""
    by_distance = of.divergence[:, 0]  # [passage depth distance]
    sums = np.stack([by_distance[..., part].sum(axis=-1) for part in of.readers.values()], axis=1)
    (value, draws) = (_half_gone(part) for part in of.sums(sums))  # [... readers]
    near = 1 if len(of.readers) > 1 else 0
    what = "depth at which half of the effect on later predictions is gone"
    gap = apart(np.asarray(value[-1]), np.asarray(value[near])), apart(draws[:, -1], draws[:, near])
    return [
        of.quantity(value, draws, "half_gone", what, "readers", units="layer"),
        of.quantity(*gap, "far_less_near", f"{what}, far readers less near ones", units="layer"),
    ]


def _half_gone(curves: np.ndarray) -> np.ndarray:
    """Where a curve over depth stays below half of its largest height; NaN where it is 0 throughout."""
    largest = curves.max(axis=-1, keepdims=True)
    return last_above(divide(curves, largest), _HALF)


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """The future's share of the effect, beside that of a random change of the same length."""
    return {
        "future_share": measure(
            result,
            "future_share",
            label="share serving later tokens",
            sense="states here serve later tokens' predictions more than their own",
            questions="where information moves",
            null=result.future_share.sel(perturbation="control", drop=True),
            perturbation="corruption",
        )
    }


def _cautions(result: xr.Dataset) -> list[str]:
    cautions = []
    at_end = float(result.divergence.isel(depth=-1).isel(distance=slice(1, None)).max())
    if at_end > 0:
        cautions.append(
            f"After the last layer no state can reach a later prediction, yet one moved by {at_end:.2g} nats: "
            "rounding, or a model that mixes tokens behind its last layer."
        )
    out = int((result.left_out_because.values != "").sum())
    if out:
        cautions.append(f"{out} of {result.sizes['passage']} passages are left out; the reasons are listed.")
    if np.isnan(float(result.crossing)):
        cautions.append("Nothing that was put in changed any prediction: there is no share, and no crossing.")
    return [*cautions, *cautions_of_unread(result)]
