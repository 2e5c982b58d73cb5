"""`layerscope.evidence.coordinates` by the name that flat files still import it by; goes with the last of them."""

from layerscope.evidence.coordinates import (
    depth_coordinate,
    groups_along,
    layer_coordinate,
    number_coordinate,
    passage_token_coordinates,
    prompt_coordinates,
    prompt_token_coordinates,
    prompts_coordinates,
    text_coordinate,
)

__all__ = [
    "depth_coordinate",
    "groups_along",
    "layer_coordinate",
    "number_coordinate",
    "passage_token_coordinates",
    "prompt_coordinates",
    "prompt_token_coordinates",
    "prompts_coordinates",
    "text_coordinate",
]
