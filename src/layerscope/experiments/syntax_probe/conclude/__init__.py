"""From probes' answers to scores over depth, with intervals over test documents, and to labels of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import xarray as xr

from layerscope.contract import Earlier
from layerscope.evidence import Over, depth_coordinate, measure, number_coordinate, text_coordinate
from layerscope.experiments.syntax_probe.conclude.answers import answers, draws_of, word_alone
from layerscope.experiments.syntax_probe.conclude.labels import labels_of_documents
from layerscope.experiments.syntax_probe.conclude.scores import codes, first_pieces, scores, untrained
from layerscope.experiments.syntax_probe.items import design
from layerscope.experiments.syntax_probe.items.design import FIELDS, NEXT, Design
from layerscope.experiments.syntax_probe.settings import Settings
from layerscope.results.escaping import restored, visible
from layerscope.results.schema import quantity, read_json, write_json
from layerscope.text.tokenised_words import LEFT_OUT

MAIN = "relation"
_OVER = ("task", "depth")
_FEW_DOCUMENTS = 8


def conclude(stages: Earlier, settings: Settings) -> xr.Dataset:
    """Scores of every task at every depth, the answer about every tested word, and labels of documents."""
    words, fits, asked = stages["words"], stages["fits"], design(stages, settings)
    tested, draws = asked.tested, draws_of(fits, "trained", "last")
    document = np.array(asked.documents)[asked.document[tested]]
    over = Over(
        xr.Dataset(coords={"tested_document": ("tested", document)}), settings, rows="tested_document"
    )
    labels = xr.DataArray(asked.labels[:, tested], dims=("task", "tested"))
    main, alone = answers(draws, labels), word_alone(asked, len(draws))
    split = xr.DataArray(asked.rows[0, tested] != asked.rows[1, tested], dims="tested")
    result = xr.merge(
        [
            scores(main, alone, labels, asked, over),
            untrained(fits, labels, alone, over),
            first_pieces(fits, main, labels, split, over),
            codes(draws, asked),
            _answers(labels, main),
        ]
    ).assign_coords(
        task=text_coordinate([task.name for task in asked.tasks], "task", "what is asked"),
        depth=depth_coordinate(draws[0].sizes["depth"] - 1),
        tested=number_coordinate(tested, "tested", "number of a tested word among the chosen ones"),
        tested_form=("tested", asked.types[tested], {"long_name": "the word as it is written"}),
        tested_document=("tested", document, {"long_name": "its document"}),
    )
    result = write_json(
        result,
        cautions=[
            *_not_asked(words, asked, settings),
            *_cautions(words, fits, asked, over.n),
            *read_json(stages["passages"], "not_asked", []),
        ],
        classes={task.name: list(task.classes) for task in asked.tasks},
        level=settings.level,
        learnt_words=len(asked.learnt(0)),
        tested_words=len(tested),
        several_tokens=int(split.sum()),
    )
    return result.merge(labels_of_documents(stages["passages"], stages["labels"], settings))


def over_depth(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Accuracy beyond the word type's about this word's relation (or the first task), with the twin's for null."""
    names = [str(name) for name in result.task.to_numpy()]
    task = MAIN if MAIN in names else names[0]
    null = result.untrained_gain.sel(task=task) if "untrained_gain" in result else None
    return {
        "syntax": measure(
            result,
            "gain",
            label=f"{task_in_words(task).removesuffix(' relation')} beyond word type",
            sense=f"much more of {task} is decodable than the word type alone allows",
            questions="what is decodable",
            null=null,
            task=task,
        )
    }


def _answers(labels: xr.DataArray, main: xr.Dataset) -> xr.Dataset:
    found = {
        "label": quantity(
            labels.astype(np.int16), ("task", "tested"), "number of the true label, −1: not asked"
        ),
        "predicted": quantity(
            main.predicted.astype(np.int16), (*_OVER, "tested"), "number of the likeliest label"
        ),
    }
    if "spread" in main:
        found["spread_over_draws"] = quantity(main.spread, _OVER, "SD of accuracy over draws")
    return xr.Dataset(found)


def _not_asked(words: xr.Dataset, asked: Design, settings: Settings) -> Iterator[str]:
    """Why a task that was wanted is not there."""
    there = {task.name for task in asked.tasks}
    for name in settings.tasks:
        if name in there:
            continue
        column = words.sentence_genre if FIELDS[name] == "genre" else words[FIELDS[name]]
        labels = set(column.to_numpy().tolist()) - {""}
        if not labels:
            yield f"{name} is not asked about: this treebank does not annotate it"
        elif len(labels) == 1:
            yield f"{name} is not asked about: this treebank has only one ({labels.pop()})"
        else:
            yield (
                f"{name} is not asked about: fewer than two labels have enough training words, or no tested word has "
                "one of them"
            )


def _cautions(words: xr.Dataset, fits: xr.Dataset, asked: Design, documents: int) -> Iterator[str]:
    why = Counter(words.left_out.to_numpy().tolist())
    left = ", ".join(f"{count} {LEFT_OUT[key]}" for key, count in sorted(why.items()) if key)
    if left:
        yield f"{why.total() - why['']} of {why.total()} words are left out: {left}"
    if documents < _FEW_DOCUMENTS:
        yield f"only {documents} test document{'s' * (documents > 1)}: intervals are too short"
    for task in asked.tasks:
        if task.left_out and not task.shift:
            yield (
                f"{task.name}: {sum(task.left_out.values())} words have labels too rare to train on "
                f"({', '.join(task.left_out)})"
            )
    slow = int((~fits.converged).sum())
    if slow:
        yield f"{slow} of {fits.converged.size} fits were stopped before their tolerance"


def task_in_words(task: object) -> str:
    """A task as sentences and figures name it: "the next word's dependency relation"."""
    name = visible(restored(str(task)), blanks=False)
    subject = name.removeprefix(NEXT)
    said = f"dependency {subject}" if subject == MAIN else subject
    return f"the next word's {said}" if name.startswith(NEXT) else said


def known_tasks(result: xr.Dataset, name: str) -> list[str]:
    """Names of tasks for which a score is known."""
    if name not in result:
        return []
    known = result[name].notnull()
    known = known.any([dim for dim in known.dims if dim != "task"])
    return [str(task) for task in result.task.to_numpy()[known]]
