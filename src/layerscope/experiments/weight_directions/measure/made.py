"""Would a rater see a meaning that is there? Directions made of known sets of tokens, and of unrelated tokens.

A direction made of a set is the mean of its tokens' vectors, each of length 1, less the mean of tokens about as
frequent: what sets them apart from others of their frequency. Made of unrelated tokens it is the same of as many
tokens about as frequent as the set's. Both are shown and rated like any direction of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier, WorkItem
from layerscope.evidence.coordinates import number_coordinate, text_coordinate
from layerscope.experiments.weight_directions.items.power import SIZES
from layerscope.experiments.weight_directions.measure.lexicon import Lexicon, numpy_generator
from layerscope.experiments.weight_directions.measure.rating import Block, rated
from layerscope.experiments.weight_directions.settings import (
    KNOWN_SET,
    MATCHED_SET,
    SIDES,
    UNRELATED,
    Settings,
)
from layerscope.results.escaping import restored
from layerscope.text.token_sets import known_token_sets

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_NEIGHBOURS, _BESIDE = 100, 20


def measure_power(model: LayeredModel, item: WorkItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Directions made of known sets, of unrelated tokens as frequent, and the same again for the threshold."""
    return made_directions(Lexicon(model, earlier["vocabulary"], settings))


def made_directions(lexicon: Lexicon) -> xr.Dataset:
    """Both sides' made directions as they are rated, with the name and size of each set along `direction`."""
    sets = token_sets(lexicon)
    blocks, names, sizes = [], [], []
    for side in SIDES:
        for origin in (KNOWN_SET, MATCHED_SET, UNRELATED):
            vectors, here = _made(lexicon, side, origin, sets)
            if len(vectors):
                nothing = np.full(len(vectors), np.nan)
                blocks.append(Block(side, "", origin, vectors, nothing, nothing, np.full(len(vectors), -1)))
                names += [name for name, _ in here]
                sizes += [size for _, size in here]
    return rated(lexicon, blocks, layer=-1).assign_coords(
        set_name=text_coordinate(names, "direction", "known set"),
        set_size=number_coordinate(sizes, "direction", "tokens that the direction is made of"),
    )


def token_sets(lexicon: Lexicon) -> dict[str, list[int]]:
    """The known sets' tokens that may be shown."""
    texts = [restored(str(text)) for text in lexicon.vocabulary.token_text.values]
    allowed = lexicon.vocabulary.allowed.values
    return known_token_sets(texts, lexicon.settings.known_sets, allowed=allowed, fewest=SIZES[0])


def _made(
    lexicon: Lexicon, kind: str, origin: str, sets: Mapping[str, Sequence[int]]
) -> tuple[Any, list[tuple[str, int]]]:
    """Directions of one origin, in the stream, and the set and size of each."""
    import torch

    side, settings = lexicon.side(kind), lexicon.settings
    rows = lexicon.rows(side)
    centre = torch.from_numpy(lexicon.centres[side]).to(rows.rows.device)
    within = min(_NEIGHBOURS, max(1, (len(lexicon.tokens_by_frequency) - 1) // 4))

    def mean_unit(ids: np.ndarray) -> Any:
        return torch.nn.functional.normalize(rows.rows[ids.ravel()].float() - centre, dim=-1).mean(0)

    made, named_sets = [], []
    for name, tokens in sets.items():
        for size in (size for size in SIZES if size <= len(tokens)):
            draw = numpy_generator(settings, "power", kind, origin, name, size)
            for _ in range(settings.set_draws):
                ids = draw.permutation(np.array(tokens))[:size]
                others = lexicon.as_frequent(
                    np.repeat(ids[:, None], 1 + _BESIDE, axis=1), draw, within=within
                )
                own = ids if origin == KNOWN_SET else others[:, 0]
                made.append(mean_unit(own) - mean_unit(others[:, 1:]))
                named_sets.append((name, size))
    if not made:
        return torch.zeros(0), []
    return runs.from_tokens(torch.stack(made), rows, fold=settings.fold_norms), named_sets
