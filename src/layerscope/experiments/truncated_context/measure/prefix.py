"""Names behind a prefix: what truncated_context measures of the state at the end of a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import depth_coordinate, named, samples, text_coordinate
from layerscope.evidence.mean_states import mean_state
from layerscope.evidence.positions import resolved
from layerscope.experiments.truncated_context.items import PrefixItem
from layerscope.experiments.truncated_context.settings import Settings
from layerscope.maths.similarity import centred_cosine
from layerscope.text.tokens import BosPolicy, bare_encoding, bos_id

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel


def behind_prefix(model: LayeredModel, item: PrefixItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """The state at the end of each name: behind a prefix against without it, and against its last token alone."""
    positions = resolved(model, settings.positions)
    mean = mean_state(earlier)
    kept = [
        (name, text)
        for name in item.names
        if (text := _prefixed(model, item.bos, settings.prefix, name)) is not None
    ]
    depths = model.n_layers + 1
    alike = np.full((2, len(kept), depths), np.nan, dtype=np.float32)
    for row, (_, (ids, length)) in enumerate(kept):
        alike[:, row] = _ends_of_names(model, ids, [length, 1], mean, positions, item.tokens_per_pass)
    without, last = alike
    over = ("name", "depth")
    return samples(
        named(
            without,
            "prefix_similarity",
            "similarity of a name's last state with and without the prefix",
            dims=over,
        ),
        named(
            last,
            "last_token_similarity",
            "similarity of a name's last state with that of its last token alone",
            dims=over,
        ),
        name=text_coordinate([name for name, _ in kept], "name", "name"),
        depth=depth_coordinate(model.n_layers),
    )


def _ends_of_names(
    model: LayeredModel,
    ids: list[int],
    lengths: list[int],
    mean: Any,
    positions: Literal["original", "shifted"],
    tokens_per_pass: int,
) -> np.ndarray:
    """Similarity of the last token's state with what it is when only so many tokens are kept [length depth]."""
    text, target = runs.full_run(model, ids), len(ids) - 1
    cells = [(target, length) for length in dict.fromkeys(lengths)]
    found = np.full((len(lengths), model.n_layers + 1), np.nan, dtype=np.float32)

    def see(depth: int, which: np.ndarray, states: Any) -> None:
        full = text.states[depth, [target] * len(which)].float()
        alike = centred_cosine(states.float(), full, centre=mean[depth].to(full.device)).cpu().numpy()
        for place, value in zip(which, alike, strict=True):
            found[[length == cells[place][1] for length in lengths], depth] = value

    runs.read_truncated(model, text, cells, see, positions=positions, tokens_per_pass=tokens_per_pass)
    return found


def _prefixed(model: LayeredModel, bos: BosPolicy, prefix: str, name: str) -> tuple[list[int], int] | None:
    """What stands first, prefix and name as ids, and how many are the name's; None where they run into one another."""
    first = bos_id(model.tokenizer, bos)
    whole, _ = bare_encoding(model.tokenizer, f"{prefix} {name}")
    before, _ = bare_encoding(model.tokenizer, prefix)
    length = len(whole) - len(before)
    if first is None or whole[: len(before)] != before or length < 1:
        return None
    context = model.facts.context
    if context is not None and len(whole) + 1 > context:
        return None
    return [first, *whole], length
