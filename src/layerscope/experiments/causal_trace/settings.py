"""Choices of a causal trace, each with its unit and its reason."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from layerscope.evidence.settings import Intervals
from layerscope.runs.drawing import TOGETHER, Drawing

_OF_ANSWERS = ("probability", "log_probability")
_METRICS = (*_OF_ANSWERS, "logit_difference", "kl")


class Settings(Intervals):
    """Choices of a causal trace."""

    noise: float | str = Field(
        "3sd",
        description="size of the noise in units of the residual stream (0.5 is the post's), or in SDs of the "
        "embedding entries of all subjects given ('3sd' is ROME's), which suits models of any scale",
    )
    corruption: Literal["gaussian", "uniform", "covariance", "replace"] = Field(
        "gaussian",
        description="Gaussian noise; uniform noise between plus and minus `noise`; Gaussian with the covariance "
        "of the subjects' embeddings; or the subject's tokens replaced by another subject's, of as many tokens "
        "(the prompt's own `partner`, else drawn from the other prompts, same category first)",
    )
    samples: int | Literal["auto"] = Field(
        10,
        description="noise draws per prompt, or partners; every one is kept. auto: as many as `precision` needs for "
        "each prompt, fixed beforehand from pilot draws that are then not used",
    )
    precision: float = Field(
        0.02,
        gt=0,
        description="for samples=auto: half-width, over draws, of the interval of a prompt's recovery at its subject "
        "and at its last token, each averaged over depth",
    )
    most_samples: int = Field(
        256, gt=0, description="for samples=auto: where to stop; prompts that would need more are counted"
    )
    noise_draws: Drawing = Field(
        "plain",
        description="how draws are made: each alone (plain, both posts'), with its mirror image (antithetic), in "
        "eights that sum to zero (balanced), or as eights of Sobol's points, scrambled (sobol)",
    )
    noised: Literal["subject", "last"] = Field(
        "subject", description="corrupt all tokens of the subject (ROME), or its last one only (the post)"
    )
    one_by_one: bool = Field(
        False,
        description="also corrupt each token of a subject alone: at which depth does the subject's last token take "
        "over from it, and at which the prompt's last token",
    )
    direction: Literal["restore", "corrupt"] = Field(
        "restore",
        description="restore clean states in the corrupted run (which are sufficient?), or corrupt single states of "
        "the clean run (which are needed?); recovery is then the share of the whole loss that one corrupted state "
        "causes",
    )
    positions: Literal["all", "rows"] = Field(
        "all",
        description="restore the state of every token, or rows only: all corrupted tokens together, and the "
        "last token. Rows take a third to a fifth of the time; effects by class of token, the share of recovery "
        "at other tokens and each prompt's heat map are then absent",
    )
    metric: str = Field(
        "probability",
        description="what recovery is a ratio of: probability, log_probability, logit_difference (answer less rival), "
        "kl (minus the divergence from the clean distribution), group:NAME (log of the summed probability of a group), "
        "or own:NAME (a function registered by layerscope.metric)",
    )
    answer: Literal["first", "all"] = Field(
        "first", description="read the first token of the answer, or all of them by teacher forcing"
    )
    rival: str = Field(
        "",
        description="for logit_difference: the rival's text; empty takes the clean run's most probable other token",
    )
    groups: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="named groups of continuations, whose first tokens are summed"
    )
    outputs: Literal["no", "rows", "all"] = Field(
        "no",
        description="also restore what attention and MLPs add, over a window of layers, at the corrupted and last "
        "tokens or at all",
    )
    window: int | None = Field(
        None, gt=0, description="layers in that window; by default a fifth of the model (ROME: 10 of 48)"
    )
    alignment: Literal["code", "paper"] = Field(
        "code",
        description="a window of 10 around layer c runs from c-5 to c+4 in ROME's code, c-4 to c+5 in its paper",
    )
    severed: bool = Field(
        False, description="also restore states while this token's MLPs, or its attention, stay as they were"
    )
    heads: bool = Field(False, description="also restore single heads at the corrupted and last tokens")
    screen: bool = Field(
        False,
        description="also estimate by gradients what every patch would do (states, outputs of attention and MLPs, "
        "and at the corrupted and last tokens heads, queries and keys), run the strongest exactly, and measure what "
        "such a screen misses",
    )
    confirm: int | Literal["all"] = Field(
        10,
        description="patches of each kind that the screen picks and exact runs confirm, for each prompt; also the k "
        "of 'the k strongest'. all: every one, which measures the misses of every kind (with k = 10)",
    )
    doses: tuple[float, ...] = Field(
        (),
        description="noise levels, as factors on `noise`, at which the corrupted and the last token are traced again",
    )
    smallest_range: float | None = Field(
        None,
        gt=0,
        description="prompts whose metric falls by less under corruption are left out of averages; by default 0.05 of "
        "probability, or 0.5 nat of anything else",
    )
    unfit: Literal["leave out", "refuse"] = Field(
        "leave out",
        description="what to do with prompts that cannot be traced (the subject is the first or last token, the prompt "
        "is too long, the answer has no tokens of its own): leave them out and list them, or refuse the run",
    )

    @field_validator("noise", mode="before")
    @classmethod
    def _noise_is_positive(cls, noise: float | str) -> float | str:
        if isinstance(noise, str):
            written = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:sd)?\s*", noise)
            if written is None or float(written[1]) <= 0:
                raise ValueError("a positive number, or one with sd behind it, such as 3sd")
            return noise.strip() if noise.strip().endswith("sd") else float(written[1])
        if not noise > 0 or not np.isfinite(noise):
            raise ValueError("a positive number, or one with sd behind it, such as 3sd")
        return noise

    @field_validator("samples")
    @classmethod
    def _there_is_a_draw(cls, samples: int | str) -> int | str:
        if isinstance(samples, int) and samples < 1:
            raise ValueError("a number above 0, or auto")
        return samples

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if metric in _METRICS or re.fullmatch(r"(group|own):\S+", metric):
            return metric
        raise ValueError(f"one of {', '.join(_METRICS)}, group:NAME or own:NAME")

    @field_validator("doses", mode="before")
    @classmethod
    def _doses_are_positive(cls, doses: Any) -> Any:
        values = [doses] if isinstance(doses, int | float) else doses
        if any(not isinstance(dose, int | float) or dose <= 0 for dose in values):
            raise ValueError("positive factors on the noise, such as [0.33, 1, 3]")
        return tuple(values)

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Settings:
        if self.metric.startswith("group:") and self.metric.removeprefix("group:") not in self.groups:
            raise ValueError(f"metric {self.metric} needs a group of that name in `groups`")
        if self.corruption == "covariance" and not isinstance(self.noise, str):
            raise ValueError("covariance-matched noise is measured in SDs: noise=3sd")
        if self.corruption == "replace" and self.doses:
            raise ValueError("a replaced token has no dose")
        self._draws_fit()
        if self.confirm != "all" and self.confirm < 1:
            raise ValueError("confirm: at least 1, or all")
        if self.screen and self.metric == "kl" and self.direction == "corrupt":
            raise ValueError(
                "a divergence from the clean run has no gradient at the clean run: another metric"
            )
        return self

    def _draws_fit(self) -> None:
        if self.corruption == "replace" and (self.samples == "auto" or self.noise_draws != "plain"):
            raise ValueError("a replaced token is not drawn: give samples as a number, and noise_draws=plain")
        if self.corruption == "uniform" and self.noise_draws == "balanced":
            raise ValueError(
                "balanced draws of uniform noise are not uniform: noise_draws=sobol or antithetic"
            )
        together = self.together
        if self.asked_samples % together:
            above = -(-self.asked_samples // together) * together
            raise ValueError(
                f"{self.noise_draws} draws come {together} at a time: samples={above}, not {self.samples}"
            )
        if self.most_samples < 2 * together:
            raise ValueError(
                f"most_samples: at least two times {together} draws, which depend on one another"
            )

    @property
    def smallest(self) -> float:
        """By how much a prompt's metric must fall under corruption, in its own unit."""
        return self.smallest_range or {"probability": 0.05}.get(self.metric, 0.5)

    @property
    def asked_samples(self) -> int:
        """Draws that were asked for by number; none where pilot draws fix them."""
        return 0 if self.samples == "auto" else self.samples

    @property
    def together(self) -> int:
        """Draws that depend on one another and count as one unit."""
        return TOGETHER[self.noise_draws]

    @property
    def of_answer(self) -> bool:
        """Whether the metric follows from the answer's log-probability, which is always kept."""
        return self.metric in _OF_ANSWERS

    @property
    def strongest(self) -> int:
        """How many of the strongest patches of a kind a screen is asked for."""
        return 10 if self.confirm == "all" else self.confirm

    def window_of(self, n_layers: int) -> int:
        """Layers in a window."""
        return min(self.window or max(1, round(n_layers * 10 / 48)), n_layers)

    def blocks_round(self, centre: int, n_layers: int) -> tuple[int, ...]:
        """The layers of the window round one, cut off at the ends of the model."""
        width = self.window_of(n_layers)
        before = width // 2 if self.alignment == "code" else (width - 1) // 2
        return tuple(range(max(0, centre - before), min(n_layers, centre - before + width)))
