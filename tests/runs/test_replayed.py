"""Runs continued from a depth against whole forward passes of a model whose blocks were really taken out or moved."""

from typing import Any

import pytest
import torch

import zoo
from layerscope import LayerscopeError
from layerscope.runs import ReplayedRun, adding_instead

IDS = [0, 40, 77, 120, 33, 210, 55, 90, 12, 18]
FAMILIES = ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "recurrent_gemma", "opt"]


def rearranged(family: str, order: list[int]) -> torch.Tensor:
    """Logits of the bare model with its blocks called in another order, by replacing what each place calls."""
    module: Any = zoo.make(family, flipped=True)
    blocks = next(m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 4)
    originals, calls = list(blocks), []
    forwards = [block.forward for block in originals]

    def place(index: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            calls.append((args, kwargs))
            if index < 3:
                return (
                    args[0] if args else kwargs["hidden_states"]
                )  # gather arguments; the last place runs all
            stream = calls[0][0][0] if calls[0][0] else calls[0][1]["hidden_states"]
            output: Any = stream
            for layer in order:
                its_args, its_kwargs = calls[layer]
                if its_args:
                    output = forwards[layer](stream, *its_args[1:], **its_kwargs)
                else:
                    output = forwards[layer](**{**its_kwargs, "hidden_states": stream})
                stream = output[0] if isinstance(output, tuple) else output
            return stream

        return forward

    for index, block in enumerate(originals):
        block.forward = place(index)
    with torch.no_grad():
        logits: torch.Tensor = module(torch.tensor([IDS]), use_cache=False).logits[0]
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("depth", "blocks", "order"),
    [
        (0, [0, 1, 2, 3], [0, 1, 2, 3]),
        (1, [2, 3], [0, 2, 3]),
        (0, [1, 0, 2, 3], [1, 0, 2, 3]),
        (3, [2, 3], [0, 1, 2, 2, 3]),
    ],
    ids=["as it is", "skip", "swap", "repeat"],
)
def test_continued_runs_equal_whole_ones(
    family: str, depth: int, blocks: list[int], order: list[int]
) -> None:
    run = ReplayedRun(zoo.layered(family, flipped=True), IDS)

    found = run.logits(run.onwards(run.states[depth], blocks))

    torch.testing.assert_close(found, rearranged(family, order), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "opt", "granite"])
@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_a_fixed_vector_is_what_is_added_instead(family: str, kind: str) -> None:
    model = zoo.layered(family, flipped=family != "opt")
    run = ReplayedRun(model, IDS)
    vector = torch.linspace(-1, 1, model.facts.width)
    from layerscope.runs import read_contributions

    with adding_instead(model, 2, kind, vector, first_position=1):
        changed = read_contributions(model, IDS)
        after = run.onwards(run.states[2], [2])

    added = getattr(changed, kind)[2]
    torch.testing.assert_close(added[1:], vector.expand(len(IDS) - 1, -1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        added[0], getattr(read_contributions(model, IDS), kind)[2, 0], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(after, changed.states[3].to(after), rtol=1e-3, atol=1e-3)
    assert not bool(torch.allclose(after[1:], run.states[3][1:], atol=1e-2))


def test_states_survive_being_continued_from() -> None:
    run = ReplayedRun(zoo.layered("llama"), IDS)
    before = run.states.clone()

    run.onwards(run.states[1], [2, 3])

    torch.testing.assert_close(run.states, before, rtol=0, atol=0)


def test_a_model_whose_blocks_cannot_be_replayed_is_refused() -> None:
    model = zoo.layered("llama")
    model.refused["unembed"] = "blocks run one by one do not give the logits"

    with pytest.raises(LayerscopeError, match="one by one"):
        ReplayedRun(model, IDS)
