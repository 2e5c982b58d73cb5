"""Names of the places in a model that can be read or edited."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from layerscope.errors import LayerscopeError

SITES = {
    "resid_pre": "residual stream before a layer",
    "resid_post": "residual stream after a layer",
    "attn_out": "vector that attention adds to the residual stream",
    "mlp_out": "vector that the MLP adds to the residual stream",
    "head_out": "each head's average of values, before the output projection",
    "q": "queries as they enter the product (after positions and norms)",
    "k": "keys as they enter the product",
    "v": "values",
    "pattern": "attention: each query's share on each key",
}
THROUGH_ATTENTION = ("head_out", "q", "k", "v", "pattern")
OF_THE_STREAM = ("resid_pre", "resid_post", "attn_out", "mlp_out")

# TransformerLens' names, which papers use.
_ALIASES = {
    "hook_resid_pre": "resid_pre",
    "hook_in": "resid_pre",
    "hook_resid_post": "resid_post",
    "hook_out": "resid_post",
    "hook_attn_out": "attn_out",
    "attn.hook_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_out": "mlp_out",
    "attn.hook_z": "head_out",
    "attn.hook_q": "q",
    "attn.hook_rot_q": "q",
    "attn.hook_k": "k",
    "attn.hook_rot_k": "k",
    "attn.hook_v": "v",
    "attn.hook_pattern": "pattern",
}


class Site(NamedTuple):
    """A place: its kind and its block."""

    kind: str
    layer: int

    def __str__(self) -> str:
        return f"{self.kind} {self.layer}"


def parse_site(text: str, n_layers: int) -> Site:
    """A site from "resid_pre 5", "resid_pre[5]" or TransformerLens' "blocks.5.hook_resid_pre".

    A negative layer counts from the last block.

    Raises:
        LayerscopeError: no such kind, or no such block.
    """
    lens = re.fullmatch(r"blocks\.(-?\d+)\.(.+)", text.strip())
    plain = re.fullmatch(r"(\w+)[\s\[]\s*(-?\d+)\]?", text.strip())
    kind, layer = "", 0
    if lens:
        kind, layer = _ALIASES.get(lens[2], lens[2]), int(lens[1])
    elif plain:
        kind, layer = plain[1], int(plain[2])
    if kind not in SITES:
        near = difflib.get_close_matches(kind or text, [*SITES, *_ALIASES], n=1)
        raise LayerscopeError(
            "there is no such site",
            found=text,
            expected=f"{near[0]} 5" if near else f"one of {', '.join(SITES)}, with a layer",
            hint='sites=["resid_pre 5", "attn_out 0"]',
        )
    if not -n_layers <= layer < n_layers:
        raise LayerscopeError(
            "this model has no such layer",
            found=text,
            expected=f"0 to {n_layers - 1}",
            hint=f"{kind} {n_layers - 1}",
        )
    return Site(kind, layer % n_layers)
