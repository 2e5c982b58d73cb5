"""Every experiment on families that break what others have in common: it runs, or is refused by name."""

import pytest
from test_promises import run

import layerscope as ls
import zoo
from layerscope import LayerscopeError, experiments


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.names())
@pytest.mark.parametrize("family", ["gemma3n_text", "doge", "deepseek_v32", "beam", "phi3_longrope"])
def test_it_runs_or_is_refused_by_name(family: str, name: str) -> None:
    model = zoo.layered(family)
    try:
        result = run(name, model=model)
    except LayerscopeError as refusal:
        assert model.facts.name in str(refusal)  # noqa: PT017
        assert "found" in str(refusal)  # noqa: PT017
        return
    assert ls.draw(result)
