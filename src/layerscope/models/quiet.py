"""No progress bars and no advice from other libraries on the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers and huggingface_hub; what they were set to is restored."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as chatter

    hub = logging.getLogger("huggingface_hub")
    bars, level, hub_level = chatter.is_progress_bar_enabled(), chatter.get_verbosity(), hub.level
    hub_bars = not are_progress_bars_disabled()
    hub.setLevel(logging.CRITICAL)
    chatter.disable_progress_bar()
    chatter.set_verbosity(logging.CRITICAL)
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            chatter.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()
