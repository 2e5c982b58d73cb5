"""The measurements of word_formation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.evidence.coordinates import (
    depth_coordinate,
    layer_coordinate,
    number_coordinate,
    text_coordinate,
)
from layerscope.experiments._formation_design import Erased, Pair, Twin
from layerscope.maths.distributions import divergence, log_total
from layerscope.maths.probes import fit_logistic
from layerscope.maths.recovery import recovery
from layerscope.maths.similarity import centred_cosine
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel
    from layerscope.runs.edits import PutSite

    Tensor = Any


def last_states(model: LayeredModel, texts: Sequence[Sequence[int]], tokens_per_pass: int) -> np.ndarray:
    """States [text depth width] of the last token of each text, in float32."""
    places = [[len(text) - 1] for text in texts]
    return np.asarray(runs.read_units(model, texts, places, tokens_per_pass=tokens_per_pass).states.numpy())


# -- twins ------------------------------------------------------------------------------------------------


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


# -- erasure ----------------------------------------------------------------------------------------------


def erasure(
    model: LayeredModel,
    head: Sequence[int],
    cases: Sequence[Erased],
    kind: str,
    tokens_per_pass: int,
    penalty: float,
) -> xr.Dataset:
    """Probability that a probe on the token's state gives its predecessor, for held-out tokens."""
    import torch

    here = [case for case in cases if case.kind == kind]
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
                [kind] * int(test.sum()), "token", "within a word, or between words"
            ),
            "case_class": number_coordinate(labels[test], "token", "class of the piece before"),
            "case_token": number_coordinate(
                [case.ids[-1] for case in here if case.test], "token", "token whose state is read"
            ),
            "depth": depth_coordinate(model.n_layers),
        },
    )


# -- patched pairs ----------------------------------------------------------------------------------------


def patch_pairs(
    model: LayeredModel, head: Sequence[int], pairs: Sequence[Pair], tokens_per_pass: int
) -> xr.Dataset:
    """For each pair, how far the source's activations, put into the target's run, bring the source's prediction.

    1 − KL(source ‖ patched) / KL(source ‖ target), of the next token's distribution at the last piece.
    All pairs have words of equally many pieces.
    """
    import torch

    from layerscope.runs.edits import Branch, Put

    pieces = len(pairs[0].source_ids)
    last = len(head) + pieces - 1
    earlier = tuple(range(len(head), last))
    target = runs.BaseRun(tuple((*head, *pair.target_ids) for pair in pairs))
    source = runs.BaseRun(tuple((*head, *pair.source_ids) for pair in pairs))
    edits: list[tuple[Put, ...]] = [(Put("state", (d,), earlier),) for d in range(model.n_layers + 1)]
    edits += [(Put("state", (d,), (last,)),) for d in range(model.n_layers + 1)]
    sites = [site for site, part in _PARTS.items() if _added_everywhere(model, site, part)]
    every = tuple(range(model.n_layers))
    for site in sites:
        frozen = [Put(other, every, (last,), source="base") for other in sites if other != site]
        edits += [(Put(site, (layer,), (last,)),) for layer in every] + [(Put(site, every, (last,)), *frozen)]
    clean = _logits(model, source, len(pairs), tokens_per_pass)
    there = runs.Reference(model, clean)
    unpatched = _logits(model, target, len(pairs), tokens_per_pass)
    unpatched = unpatched.to(model.device)
    start = divergence(there.own, unpatched, log_total(unpatched)).cpu()
    branches = [Branch(edit, row=row, other_row=row) for row in range(len(pairs)) for edit in edits]

    def read(said: runs.Predictions, indices: Sequence[int]) -> Tensor:
        rows = torch.tensor([index // len(edits) for index in indices])
        return said.read(against=there, rows_of=rows).divergence

    values = runs.run_patched(
        model, branches, base=target, other=source, read=read, tokens_per_pass=tokens_per_pass
    )
    kl = values.reshape(len(pairs), len(edits)).numpy()
    recovered = recovery(-kl, noised=-start.numpy()[:, None], clean=np.zeros((len(pairs), 1)))
    return _as_patched(model, pairs, recovered, start.numpy(), sites)


_PARTS: dict[PutSite, str] = {"attn_out": "attention", "mlp_out": "mlp"}


def _added_everywhere(model: LayeredModel, site: str, part: str) -> bool:
    return site not in model.refused and all(
        addition is not None and getattr(addition, part) is not None for addition in model.additions
    )


def _logits(model: LayeredModel, run: Any, rows: int, tokens_per_pass: int) -> Any:
    from layerscope.runs.edits import Branch

    return runs.run_patched(
        model,
        [Branch((), row=row) for row in range(rows)],
        base=run,
        read=lambda said, _: said.logits()[:, -1].float(),
        tokens_per_pass=tokens_per_pass,
    )


def _as_patched(
    model: LayeredModel, pairs: Sequence[Pair], recovered: np.ndarray, start: np.ndarray, sites: Sequence[str]
) -> xr.Dataset:
    n, depths = model.n_layers, model.n_layers + 1
    rows = np.stack([recovered[:, :depths], recovered[:, depths : 2 * depths]], axis=1)
    parts, wholes = np.full((len(pairs), 2, n), np.nan), np.full((len(pairs), 2), np.nan)
    at = 2 * depths
    for place, site in enumerate(("attn_out", "mlp_out")):
        if site in sites:
            parts[:, place], wholes[:, place] = recovered[:, at : at + n], recovered[:, at + n]
            at += n + 1
    return xr.Dataset(
        {
            "recovered": quantity(
                rows.astype(np.float32), "prompt piece depth", "recovery of the other word's prediction"
            ),
            "recovered_part": quantity(
                parts.astype(np.float32),
                "prompt site layer",
                "recovery by what one layer's part adds at the last piece",
            ),
            "recovered_whole_part": quantity(
                wholes.astype(np.float32),
                "prompt site",
                "recovery by this part of all layers at the last piece, the other part kept as it was",
            ),
            "apart": quantity(
                start.astype(np.float32), "prompt", "divergence between the two words' predictions", "nat"
            ),
        },
        coords={
            "prompt": text_coordinate([f"{p.source} → {p.target}" for p in pairs], "prompt", "pair of words"),
            "kind": text_coordinate([p.kind for p in pairs], "prompt", "words, or made up"),
            "pieces": number_coordinate([len(p.source_ids) for p in pairs], "prompt", "pieces of the words"),
            "piece": text_coordinate(["earlier pieces", "last piece"], "piece", "whose states are put in"),
            "site": text_coordinate(["attention", "MLP"], "site", "part of the layer"),
            "depth": depth_coordinate(n),
            "layer": layer_coordinate(n),
        },
    )
