"""The sentences: for the effect, its opposite, nothing, and too few passages. And what `layerscope selftest` tries."""

import pytest

import layerscope as ls
from layerscope import experiments
from layerscope.contract import Claim
from layerscope.jobs.selftest import selftest
from layerscope.planted.growing import growing, passages


def claim(rate: float, number: int = 12) -> Claim:
    """The first claim on a model whose states grow at this rate, with so many passages."""
    result = ls.run("state_growth", growing(rate=rate), passages=passages(number=number), progress=False)
    return experiments.load("state_growth").claims(result)[0]


@pytest.mark.parametrize(("rate", "word"), [(0.05, "grows"), (-0.05, "shrinks")])
def test_the_sentence_turns_round_with_the_effect(rate: float, word: str) -> None:
    """What is planted is said, with its number."""
    said = claim(rate)

    assert said.text.startswith(f"The residual stream {word} by {abs(100 * said.value):.1f}% per layer")
    assert said.value == pytest.approx(rate, abs=0.005)


def test_where_there_is_nothing_none_is_said() -> None:
    """No growth gives the null's sentence."""
    assert claim(0.0).text.startswith("No detectable growth")


def test_with_too_few_passages_nothing_is_said() -> None:
    """Three passages cannot give a small p."""
    assert claim(0.05, number=3).text.startswith("Too few passages")


def test_every_planted_answer_is_found() -> None:
    """As `layerscope selftest state_growth` does."""
    outcomes = list(selftest(experiment="state_growth", quick=True))

    assert outcomes
    assert all(outcome.holds for outcome in outcomes), "\n".join(
        line for one in outcomes for line in one.lines()
    )
