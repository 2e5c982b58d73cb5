"""How future_use is cut: passages for mean and spread, then passages some of whose states are corrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from layerscope.contract import Earlier, Inputs, WorkItem
from layerscope.errors import LayerscopeError
from layerscope.evidence.distances import longest_first, longest_passage, need_bos
from layerscope.experiments.future_use.settings import Settings
from layerscope.text.tokenised import TokenisedPassage

_OF_ANOTHER = ("another text", "swapped")


class SpreadItem(WorkItem):
    """One passage, to be read whole."""

    passage: TokenisedPassage


class FutureItem(WorkItem):
    """One passage, some of whose states are corrupted."""

    passage: TokenisedPassage
    donors: tuple[TokenisedPassage, ...] = Field(
        description="texts whose states take the place, one a sample"
    )
    targets: tuple[int, ...] = Field(description="positions whose states are corrupted; empty: left out")
    horizon: int = Field(description="later tokens whose predictions are read")
    samples: int
    left_out: str = Field(description="why the passage is left out, or empty")
    tokens_per_pass: int


def spread_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[SpreadItem]:
    """Every passage, where the corruption needs their mean or their spread."""
    if settings.corruption in ("noise", "mean"):
        for passage in inputs.passages:
            if len(passage.tokens) > 1:
                size = inputs.facts.operations(len(passage.tokens))
                yield SpreadItem(name=passage.name, size=size, passage=passage)


def future_items(inputs: Inputs, settings: Settings, earlier: Earlier) -> Iterator[FutureItem]:
    """The longest passages, each with its targets: contiguous, as late as the horizon allows."""
    if settings.corruption in ("truncated", "swapped"):
        need_bos(inputs)
    used = longest_first(inputs.passages, settings.corrupted_passages)
    horizon = min(settings.horizon, longest_passage(inputs) // 2)
    samples = settings.samples if settings.corruption in ("noise", *_OF_ANOTHER) else 1
    _check(inputs, used, settings, horizon, samples)
    found = [_item(inputs, settings, used, place, horizon, samples) for place in range(len(used))]
    if not any(item.targets for item in found):
        raise LayerscopeError(
            "no passage has a state to corrupt",
            found=f"{used[0].name}: {found[0].left_out}",
            expected=f"passages of at least {horizon + 3} tokens with BOS",
            hint="longer passages, or --set horizon=4",
        )
    yield from found


def _check(
    inputs: Inputs, used: Sequence[TokenisedPassage], settings: Settings, horizon: int, samples: int
) -> None:
    if horizon < 1 or longest_passage(inputs) < 4:
        raise LayerscopeError(
            "there are no later tokens",
            found=f"the longest passage has {longest_passage(inputs)} tokens with BOS",
            expected="at least four: BOS, a token, a later one, and what follows it",
            hint="longer passages",
        )
    if settings.corruption in _OF_ANOTHER and len(used) <= samples:
        raise LayerscopeError(
            "there is no other text to take states from",
            found=f"{len(used)} passages, {samples} samples",
            expected="more passages than samples",
            hint="more passages, or --set corruption=mean",
        )


def _item(
    inputs: Inputs,
    settings: Settings,
    used: Sequence[TokenisedPassage],
    place: int,
    horizon: int,
    samples: int,
) -> FutureItem:
    passage = used[place]
    donors = _donors(used, place, samples) if settings.corruption in _OF_ANOTHER else ()
    # The last token has no next token to compare with; the first is BOS.
    last = len(passage.tokens) - 2 - horizon
    targets = tuple(range(max(1, last - settings.targets + 1), last + 1))
    left_out = "" if targets else f"too short: {len(passage.tokens)} tokens"
    if donors and targets:
        targets = tuple(t for t in targets if t < min(len(donor.tokens) for donor in donors))
        left_out = "" if targets else "no other passage is long enough to take its place"
    depths = inputs.facts.n_layers + 1
    # Tokens through the layers: two whole runs, the donors', and half of the layers for both perturbations.
    read = len(targets) * samples * depths * (horizon + 1)
    size = inputs.facts.operations(len(passage.tokens) * (2 + len(donors)) + read, logits=2 * read)
    return FutureItem(
        name=passage.name,
        size=size,
        passage=passage,
        donors=donors if targets else (),
        targets=targets,
        horizon=horizon,
        samples=samples,
        left_out=left_out,
        tokens_per_pass=inputs.tokens_per_pass,
    )


def _donors(used: Sequence[TokenisedPassage], place: int, count: int) -> tuple[TokenisedPassage, ...]:
    """The next passages that are at least as long; where there are too few, the longest others."""
    others = [*used[place + 1 :], *used[:place]]
    enough = [other for other in others if len(other.tokens) >= len(used[place].tokens)]
    rest = sorted((o for o in others if o not in enough), key=lambda other: -len(other.tokens))
    return tuple([*enough, *rest][:count])
