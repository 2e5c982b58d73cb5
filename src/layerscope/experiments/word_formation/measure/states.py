"""States of last pieces: compared with single tokens, and probed for the piece before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.evidence import depth_coordinate, number_coordinate, text_coordinate
from layerscope.experiments.word_formation.items.design import Erased, Twin
from layerscope.maths.probes import fit_logistic
from layerscope.maths.similarity import centred_cosine
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def last_states(model: LayeredModel, texts: Sequence[Sequence[int]], tokens_per_pass: int) -> np.ndarray:
    """States [text depth width] of the last token of each text, in float32."""
    places = [[len(text) - 1] for text in texts]
    return np.asarray(runs.read_units(model, texts, places, tokens_per_pass=tokens_per_pass).states.numpy())


def compare_twins(
    model: LayeredModel, head: Sequence[int], twins: Sequence[Twin], tokens_per_pass: int
) -> xr.Dataset:
    """How alike the last piece's state is to the single token's, of the same word and of the others."""
    forms = {
        form: last_states(model, [(*head, *getattr(twin, form)) for twin in twins], tokens_per_pass)
        for form in ("whole", "split", "swapped")
    }
    centre = forms["whole"].mean(axis=0, keepdims=True)
    own, others, named = [], [], []
    for form in ("split", "swapped"):
        # [word word depth]: this form of one word beside the single tokens of all
        every = np.stack(
            [
                centred_cosine(np.broadcast_to(one, forms["whole"].shape), forms["whole"], centre=centre)
                for one in forms[form]
            ]
        )
        every = np.nan_to_num(every)
        same = np.einsum("wwd->wd", every)
        own.append(same)
        others.append((every.sum(axis=1) - same) / max(1, len(twins) - 1))
        named.append(every.argmax(axis=1) == np.arange(len(twins))[:, None])
    return xr.Dataset(
        {
            "own_similarity": quantity(
                np.stack(own, 1), "word form depth", "centred cosine with the word's single token"
            ),
            "other_similarity": quantity(
                np.stack(others, 1), "word form depth", "mean centred cosine with other words' single tokens"
            ),
            "found_twin": quantity(
                np.stack(named, 1), "word form depth", "whether the nearest single token is the word's own"
            ),
        },
        coords={
            "word": text_coordinate([twin.word for twin in twins], "word", "word"),
            "form": text_coordinate(["split", "swapped"], "form", "form of the word"),
            "depth": depth_coordinate(model.n_layers),
        },
    )


def probed_cases(
    model: LayeredModel, head: Sequence[int], here: Sequence[Erased], tokens_per_pass: int, penalty: float
) -> xr.Dataset:
    """Probability that a probe of the token's state gives to its predecessor, for held-out tokens of one kind."""
    import torch

    states = torch.from_numpy(
        last_states(model, [(*head, *case.ids) for case in here], tokens_per_pass)
    ).transpose(0, 1)
    test = np.array([case.test for case in here])
    labels = np.array([case.label for case in here])
    train = states[:, torch.from_numpy(~test)]
    factor = (train - train.mean(1, keepdim=True)).pow(2).mean((1, 2), keepdim=True).sqrt().clamp(min=1e-30)
    probes = fit_logistic(
        train / factor,
        torch.from_numpy(labels[~test])[None],
        [int(labels.max()) + 1],
        l2=penalty,
        standardise=False,
    )
    logs = next(iter(probes.log_probabilities(states[:, torch.from_numpy(test)] / factor))).numpy()
    right = np.take_along_axis(logs, labels[test][None, :, None], axis=2)[..., 0].T
    return xr.Dataset(
        {
            "told": quantity(
                np.exp(right), "token depth", "probability that the probe gives the piece before"
            ),
        },
        coords={
            "case_kind": text_coordinate(
                [here[0].kind] * int(test.sum()), "token", "within a word, or between words"
            ),
            "case_class": number_coordinate(labels[test], "token", "class of the piece before"),
            "case_token": number_coordinate(
                [case.ids[-1] for case in here if case.test], "token", "token whose state is read"
            ),
            "depth": depth_coordinate(model.n_layers),
        },
    )
