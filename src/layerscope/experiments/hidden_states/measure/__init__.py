"""Some texts of hidden_states: their mean state, the path of every token of a passage, of every prompt's last token."""

from layerscope.experiments.hidden_states.measure.texts import centre, passages, prompts

__all__ = ["centre", "passages", "prompts"]
