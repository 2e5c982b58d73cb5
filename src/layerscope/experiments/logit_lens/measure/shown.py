"""A prompt that is shown whole: the most probable tokens at every depth of its last positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerscope import runs
from layerscope.contract import Earlier
from layerscope.evidence import depth_coordinate, named, number_coordinate, samples, text_coordinate
from layerscope.experiments.logit_lens.items import LensItem
from layerscope.experiments.logit_lens.measure.token_text import text_of
from layerscope.experiments.logit_lens.settings import Settings

if TYPE_CHECKING:
    from layerscope.models.layered import LayeredModel

_CELL = ("shown_token", "depth", "place")


def shown(model: LayeredModel, item: LensItem, settings: Settings, earlier: Earlier) -> xr.Dataset:
    """Top tokens by depth and position, and where the answer, or the model's own final choice, stands among them."""
    (prompt,) = item.prompts
    positions = range(max(0, prompt.n_tokens - settings.shown_positions), prompt.n_tokens)
    answer = runs.UNKNOWN if prompt.own else prompt.answer_ids[0]
    table = runs.read_lens_table(model, prompt.tokens.ids, positions, answer=answer)
    n = len(positions)

    def along_tokens(values: list[str], what: str) -> xr.Variable:
        return text_coordinate(values, "shown_token", what)

    texts = np.array([text_of(model.tokenizer, token) for token in table.tokens.flatten().tolist()])
    followed = [text_of(model.tokenizer, token) for token in table.target.tolist()]
    final = "the answer at the last token, the model's final choice at others"
    return samples(
        named(texts.reshape(table.tokens.shape), "shown_top_text", "most probable tokens", dims=_CELL),
        named(table.probability, "shown_probability", "probability by logit lens", dims=_CELL),
        named(followed, "shown_target_text", final, dims=_CELL[:1]),
        named(
            table.target_probability, "shown_target_probability", f"probability of {final}", dims=_CELL[:2]
        ),
        named(table.rank, "shown_rank", f"rank of {final}", dims=_CELL[:2]),
        shown_prompt=along_tokens([prompt.name] * n, "prompt of the token"),
        shown_prompt_text=along_tokens([prompt.text] * n, "text of the prompt"),
        shown_position=number_coordinate(positions, "shown_token", "position in the prompt"),
        shown_token_text=along_tokens([prompt.tokens.texts[p] for p in positions], "token, as JSON text"),
        depth=depth_coordinate(model.n_layers),
        place=number_coordinate(
            range(1, table.tokens.shape[-1] + 1), "place", "place among the most probable"
        ),
    )
