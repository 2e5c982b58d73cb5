"""Python calls with wrong types: told by the argument's name, before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layerscope as ls
from quick import QUICK

PROMPT = "the *red fox* met the old dog in"
WRONG: dict[str, Callable[[Any], Any]] = {
    "experiment": lambda m: ls.run(5, m),
    "limit": lambda m: ls.run("causal_trace", m, PROMPT, limit="a"),
    "limit of a half": lambda m: ls.run("causal_trace", m, PROMPT, limit=1.5),
    "limit of a switch": lambda m: ls.run("causal_trace", m, PROMPT, limit=True),
    "longest": lambda m: ls.run("hidden_states", m, longest=-1),
    "out": lambda m: ls.run("causal_trace", m, PROMPT, out=5),
    "out in bytes": lambda m: ls.run("causal_trace", m, PROMPT, out=b"runs"),
    "bos": lambda m: ls.run("causal_trace", m, PROMPT, bos=None),
    "chat": lambda m: ls.run("causal_trace", m, PROMPT, chat="yes"),
    "untrained_twins": lambda m: ls.run("causal_trace", m, PROMPT, untrained_twins=-1),
    "workers": lambda m: ls.run("causal_trace", m, PROMPT, workers="many"),
    "progress": lambda m: ls.run("causal_trace", m, PROMPT, progress=5),
    "prompt": lambda m: ls.trace(m, None),
    "text": lambda m: ls.read(m, None, sites="resid_pre 1"),
    "sites": lambda m: ls.read(m, "a dog", sites=[5]),
    "result": lambda m: ls.draw(5),
    "path": lambda m: ls.open_run(None),
    "run": lambda m: ls.show(5),
    "dtype": lambda m: ls.load_model("bundled", dtype=["float32"]),
    "revision": lambda m: ls.load_model("bundled", revision=5),
    "tokenizer": lambda m: ls.load_model("bundled", tokenizer=5),
    "name": lambda m: ls.metric(5, len),
    "function": lambda m: ls.metric("mine", 5),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_argument_of_a_wrong_type_is_told_by_its_name(tiny_model: Any, case: str) -> None:
    with pytest.raises(ls.LayerscopeError, match=f"^{case.split()[0]} of layerscope") as caught:
        WRONG[case](tiny_model)
    assert str(caught.value).count("\n") == 3


@pytest.mark.parametrize("given", [5, None, [5], [None]])
@pytest.mark.parametrize("call", [ls.layers, ls.compare])
def test_what_is_no_run_is_told(call: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises(ls.LayerscopeError, match="this is no run"):
        call(given)


@pytest.mark.parametrize("setting", [{"noise": object()}, {"doses": 5j}, {"samples": {5: 6}}, {"seed": b"x"}])
def test_a_setting_that_no_record_could_hold_is_told(tiny_model: Any, setting: dict[str, Any]) -> None:
    with pytest.raises(ls.LayerscopeError, match=f"setting {next(iter(setting))} of causal_trace"):
        ls.run("causal_trace", tiny_model, PROMPT, **setting)


def test_what_is_right_is_taken_as_ever(tiny_model: Any, tmp_path: Path) -> None:
    given = {"limit": np.int64(1), "out": tmp_path, "workers": np.int32(0), "progress": False}

    assert "recovery" in ls.run("causal_trace", tiny_model, PROMPT, **given, **QUICK)
    assert ls.run.__doc__ is not None
    assert ls.run.__doc__.startswith("Run one experiment")
