"""Paired patching: the states, and what each layer adds, of one word put into the run of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.evidence import depth_coordinate, layer_coordinate, number_coordinate, text_coordinate
from layerscope.experiments.word_formation.items.design import Pair
from layerscope.maths.distributions import divergence, log_total
from layerscope.maths.recovery import recovery
from layerscope.results.schema import quantity

if TYPE_CHECKING:
    from torch import Tensor

    from layerscope.models.layered import LayeredModel
    from layerscope.runs.edits import Put, PutSite


def patch_pairs(
    model: LayeredModel, head: Sequence[int], pairs: Sequence[Pair], tokens_per_pass: int
) -> xr.Dataset:
    """For each pair, how far the source's activations, put into the target's run, bring the source's prediction.

    1 − KL(source ‖ patched) / KL(source ‖ target), of the next token's distribution at the last piece.
    All pairs have words of equally many pieces.
    """
    import torch

    pieces = len(pairs[0].source_ids)
    target = runs.BaseRun(tuple((*head, *pair.target_ids) for pair in pairs))
    source = runs.BaseRun(tuple((*head, *pair.source_ids) for pair in pairs))
    sites = [site for site, part in _PARTS.items() if _added_everywhere(model, site, part)]
    edits = _edits(model.n_layers, range(len(head), len(head) + pieces), sites)
    clean = _logits(model, source, len(pairs), tokens_per_pass)
    there = runs.Reference(model, clean)
    unpatched = _logits(model, target, len(pairs), tokens_per_pass).to(model.device)
    start = divergence(there.own, unpatched, log_total(unpatched)).cpu()

    def read(said: runs.Predictions, indices: Sequence[int]) -> Tensor:
        rows = torch.tensor([index // len(edits) for index in indices])
        return said.read(against=there, rows_of=rows).divergence

    values = runs.run_patched(
        model,
        [runs.Branch(edit, row=row, other_row=row) for row in range(len(pairs)) for edit in edits],
        base=target,
        other=source,
        read=read,
        tokens_per_pass=tokens_per_pass,
    )
    kl = values.reshape(len(pairs), len(edits)).numpy()
    recovered = recovery(-kl, noised=-start.numpy()[:, None], clean=np.zeros((len(pairs), 1)))
    return _as_patched(model, pairs, recovered, start.numpy(), sites)


def _edits(n_layers: int, pieces: range, sites: Sequence[PutSite]) -> list[tuple[Put, ...]]:
    """What is put in: the earlier pieces' states and the last one's at every depth; then, for each part of a layer,
    what it adds at the last piece in each layer, and in all of them with the other part kept as it was."""
    from layerscope.runs.edits import Put

    *earlier, last = pieces
    every = tuple(range(n_layers))
    edits: list[tuple[Put, ...]] = [
        (Put("state", (depth,), tuple(places)),)
        for places in (earlier, [last])
        for depth in range(n_layers + 1)
    ]
    for site in sites:
        frozen = [Put(other, every, (last,), source="base") for other in sites if other != site]
        edits += [(Put(site, (layer,), (last,)),) for layer in every] + [(Put(site, every, (last,)), *frozen)]
    return edits


_PARTS: dict[PutSite, str] = {"attn_out": "attention", "mlp_out": "mlp"}


def _added_everywhere(model: LayeredModel, site: str, part: str) -> bool:
    return site not in model.refused and all(
        addition is not None and getattr(addition, part) is not None for addition in model.additions
    )


def _logits(model: LayeredModel, run: Any, rows: int, tokens_per_pass: int) -> Any:
    return runs.run_patched(
        model,
        [runs.Branch((), row=row) for row in range(rows)],
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
