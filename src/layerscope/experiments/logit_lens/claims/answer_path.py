"""One prompt's answer through depth, in lines: what leads at each depth, and where the answer stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from layerscope.maths.leading import first_leads, settled
from layerscope.results.escaping import restored, visible

_MOST_ROWS = 33
_LONGEST = 24


@dataclass(frozen=True)
class AnswerPath:
    """What the logit lens reads at a prompt's last token, from the embeddings to the output.

    Attributes:
        answer: the token that is followed.
        leaders: the most probable token and its probability [depth].
        probability, rank: of the answer [depth].
    """

    answer: str
    leaders: Sequence[tuple[str, float]]
    probability: Sequence[float]
    rank: Sequence[int]

    @property
    def leads(self) -> int | None:
        """The first depth at which the answer is the top token; None where it never is."""
        return _known(first_leads(np.array(self.rank)))

    @property
    def settled(self) -> int | None:
        """The depth from which it stays so; None where it is not the top token at the end."""
        return _known(settled(np.array(self.rank)))


def _known(depth: np.ndarray) -> int | None:
    return int(depth) if np.isfinite(depth) else None


def tell(result: xr.Dataset) -> list[str]:
    """Of a run about one prompt whose table was kept: its answer, and what leads at each depth; else nothing."""
    if result.sizes.get("prompt") != 1 or "shown_rank" not in result:
        return []
    last = result.isel(shown_token=-1)
    top = last.isel(place=0)
    path = AnswerPath(
        answer=restored(str(last.shown_target_text.values)),
        leaders=[
            (restored(str(text)), float(probability))
            for text, probability in zip(top.shown_top_text.values, top.shown_probability.values, strict=True)
        ],
        probability=last.shown_target_probability.values.tolist(),
        rank=last.shown_rank.values.tolist(),
    )
    return [f"The answer {sentence(path)}", *table(path)]


def sentence(path: AnswerPath) -> str:
    """The answer, its probability, and when it leads: "“·Paris” has probability 0.703 and leads from depth 27 on."."""
    last = len(path.rank) - 1
    has = f"{_quoted(path.answer)} has probability {path.probability[-1]:.3f} and"
    if path.leads is None:
        return f"{has} leads at no depth (rank {path.rank[-1]:,} at depth {last})."
    if path.settled is None:
        return f"{has} first leads at depth {path.leads}, and not at depth {last} (rank {path.rank[-1]:,} there)."
    if path.settled == path.leads:
        return f"{has} leads from depth {path.leads} of {last} on."
    return f"{has} first leads at depth {path.leads} and is settled at depth {path.settled} of {last}."


def table(path: AnswerPath) -> Iterator[str]:
    """Depth by depth the top token by logit lens, its probability, and the answer's rank.

    Of a deep model every second or third depth, with those at which the answer first leads, is settled and ends.
    """
    shown = _depths(path)
    width = max(len("top token"), *(len(_short(path.leaders[depth][0])) for depth in shown))
    yield f"depth  {'top token':<{width}}  probability  rank of {_quoted(path.answer)}"
    for depth in shown:
        text, probability = path.leaders[depth]
        yield f"{depth:>5}  {_short(text):<{width}}  {probability:>11.3f}  {path.rank[depth]:>6,}"


def _depths(path: AnswerPath) -> list[int]:
    number = len(path.rank)
    step = -(-number // _MOST_ROWS)
    turns = {path.leads, path.settled} - {None}
    return [depth for depth in range(number) if (number - 1 - depth) % step == 0 or depth in turns]


def _quoted(text: str) -> str:
    return f"“{visible(text)}”"


def _short(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
