"""A traced prompt in the terminal: a map of tokens by depth that reads the same without colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.style import Style
from rich.text import Text

from layerscope.experiments.logit_lens.claims.answer_path import AnswerPath, sentence, table
from layerscope.jobs.tracing import TracedPrompt
from layerscope.results.escaping import visible

_LONGEST_LABEL = 14
_LEGEND = "tenths: . below 0.05, 1-9, # 0.95 or more, - below −0.05"
_PALE, _DARK = (255, 255, 255), (8, 64, 129)


def lines_of_trace(traced: TracedPrompt, *, width: int) -> Iterator[Text]:
    """The map, the answer's path below it, and what they say, in lines of at most `width` columns."""
    depths = len(traced.recovery[0])
    labels = [_label(text, noised) for text, noised in _tokens(traced)]
    margin = max(len("logit lens"), *map(len, labels)) + 1
    shown, cell = _columns(depths, width - margin)
    answer = f"“{visible(traced.answer)}”"
    yield Text(
        f"{traced.model}: {answer} has probability {traced.clean:.3f}, {traced.corrupted:.3f} with * corrupted"
    )
    yield Text("Recovery of the answer when one token's clean state is restored at one depth")
    yield Text(f"({_LEGEND}; mean over {traced.draws} draws)")
    yield Text()
    for label, row in zip(labels, traced.recovery, strict=True):
        yield _row(label, [row[depth] for depth in shown], margin, cell)
    yield Text(f"{'depth':<{margin}}{_axis(shown, cell)}")
    if traced.probability:
        yield Text()
        yield _row("logit lens", [traced.probability[depth] for depth in shown], margin, cell)
        yield Text(f"(probability of {answer} if the model stopped at that depth)")
    yield Text()
    yield from (Text(line) for line in _sentences(traced))
    if traced.probability:
        yield Text()
        yield from (Text(line) for line in table(_path(traced)))


def _tokens(traced: TracedPrompt) -> Iterator[tuple[str, bool]]:
    return ((text, place in traced.noised) for place, text in enumerate(traced.tokens))


def _label(text: str, noised: bool) -> str:
    written = visible(text)
    longest = _LONGEST_LABEL - 2 * noised
    written = written if len(written) <= longest else written[: longest - 1] + "…"
    return f"*{written}*" if noised else written


def _columns(depths: int, room: int) -> tuple[list[int], int]:
    """Which depths are shown, and columns for each: two where they fit, one, or every k-th depth and the last."""
    for cell in (2, 1):
        if depths * cell <= room:
            return list(range(depths)), cell
    step = -(-depths // max(1, room))
    return list(range(depths - 1, -1, -step))[::-1], 1


def _row(label: str, values: Sequence[float | None], margin: int, cell: int) -> Text:
    line = Text(f"{label:<{margin}}")
    for value in values:
        line.append(f"{_sign(value):<{cell}}", style=_style(value))
    line.rstrip()
    return line


def _sign(value: float | None) -> str:
    if value is None:
        return " "
    if value < 0.05:
        return "-" if value < -0.05 else "."
    return "#" if value >= 0.95 else str(max(1, round(value * 10)))


def _style(value: float | None) -> Style:
    if value is None or value < 0.05:
        return Style()
    share = min(1.0, value)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_PALE, _DARK, strict=True))
    return Style(color="white" if share > 0.5 else "black", bgcolor=f"rgb({red},{green},{blue})")


def _axis(shown: Sequence[int], cell: int) -> str:
    """Depths under their columns, as many as can be told apart."""
    line = ""
    for place, depth in enumerate(shown):
        if depth % 5 == 0 and len(line) <= place * cell - bool(line):
            line = f"{line:<{place * cell}}{depth}"
    return line


def _path(traced: TracedPrompt) -> AnswerPath:
    return AnswerPath(traced.answer, traced.leaders, traced.probability, traced.rank)


def _sentences(traced: TracedPrompt) -> Iterator[str]:
    said = ", ".join(f"“{visible(text)}” {probability:.3f}" for text, probability in traced.predictions)
    yield f"Top predictions: {said}"
    if traced.crossover is not None:
        yield f"Crossover: the last token takes over from the subject at depth {traced.crossover:.1f}."
    elif all(value is None for row in traced.recovery for value in row):
        yield "Corruption lowers the answer's probability by too little to trace what brings it back."
    else:
        yield "No crossover: the last token does not take over from the subject at one depth."
    if traced.probability:
        yield f"Logit lens: {sentence(_path(traced))}"
    yield f"{visible(traced.stands_first)} stands first."
