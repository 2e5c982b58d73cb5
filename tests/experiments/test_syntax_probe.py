"""Syntax probes against plain computations, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler

import layerscope as ls
import treebanks
import zoo
from layerscope import LayerscopeError
from layerscope.experiments import syntax_probe
from layerscope.experiments.syntax_probe.conclude.baselines import baselines
from layerscope.experiments.syntax_probe.items.design import Design, design_of
from layerscope.jobs import running
from layerscope.jobs.prepare import prepare
from layerscope.jobs.progress import Silent
from layerscope.jobs.request import Request
from layerscope.planted import part_of_speech
from layerscope.results.schema import read_json
from layerscope.text.tokenised_words import tokenise_sentence
from layerscope.text.treebanks import load_treebank
from turned import said_of

SMALL: dict[str, Any] = {"progress": False, "resamples": 50, "fewest": 5}
FAMILIES = ["gpt2", "llama", "mistral", "gemma2", "gpt_oss"]


@pytest.fixture(scope="module")
def text() -> str:
    return treebanks.small(documents=16)


def run(model: Any, text: str, **settings: Any) -> xr.Dataset:
    return ls.run("syntax_probe", model, treebank=text, **(SMALL | settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_answers_are_those_of_scikit_learn_on_states_read_one_by_one(
    family: str, text: str
) -> None:
    """Independent: own alignment, the plain states of each sentence alone, scikit-learn's probes and scores."""
    model = zoo.layered(family, flipped=True)
    text = text.replace("fox", "foxglove").replace("met", "remembered")  # words of several tokens
    result = run(model, text, tolerance=1e-6, l2=5.0, untrained=False, code=False, tasks=["part of speech"])
    sentences = load_treebank(text)
    held_out = set(result.tested_document.values.tolist())
    classes = read_json(result, "classes")["part of speech"]

    rows: dict[bool, list[Any]] = {True: [], False: []}
    for sentence in sentences:
        tokens = tokenise_sentence(model.tokenizer, sentence).tokens
        states = _plain_states(model, tokens.ids)
        at = 0
        for word, tag in zip(sentence.text.split(" "), sentence.upos, strict=True):
            at += len(word) + (at > 0)
            last = max(p for p, (a, b) in enumerate(tokens.spans) if a < b <= at)
            rows[sentence.document in held_out].append(
                (states[:, last], classes.index(tag), sentence.document)
            )
    for depth in range(model.n_layers + 1):
        learn = np.stack([row[0][depth] for row in rows[False]])
        test = np.stack([row[0][depth] for row in rows[True]])
        scaler = StandardScaler().fit(learn)
        probe = LogisticRegression(C=1 / 5.0, tol=1e-8, max_iter=5000)
        labels = np.array([row[1] for row in rows[False]])
        truth = np.array([row[1] for row in rows[True]])
        told = probe.fit(scaler.transform(learn), labels).predict_proba(scaler.transform(test))
        mixed = (len(labels) * told + 1 / len(classes)) / (len(labels) + 1)
        here = result.sel(task="part of speech", depth=depth)

        loss = -np.log(mixed[range(len(truth)), truth]).mean()
        assert float(here.loss) == pytest.approx(loss, abs=2e-3)
        assert float(here.accuracy) == pytest.approx((told.argmax(1) == truth).mean(), abs=0.011)
        expected = f1_score(truth, told.argmax(1), average="macro")
        assert float(here.macro_f1) == pytest.approx(expected, abs=0.02)


def _plain_states(model: Any, ids: tuple[int, ...]) -> np.ndarray:
    """The residual stream of one sentence alone, by hooks of this test's own."""
    seen: list[torch.Tensor] = []

    def before(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    def after(_: Any, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in model.blocks]
    handles.append(model.blocks[-1].register_forward_hook(after))
    with torch.no_grad():
        model.module(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack([states.reshape(len(ids), -1) for states in seen]).float().numpy()


def test_what_is_planted_is_found_from_its_depth_on() -> None:
    result = run(part_of_speech.part_of_speech(), part_of_speech.treebank(documents=30), code=True)

    gain = result.gain.sel(task="part of speech")
    assert (abs(gain.sel(depth=[0, 1])) < 0.06).all()
    assert (abs(gain.sel(depth=[2, 3]) - 0.25) < 0.06).all()
    assert float(result.accuracy.sel(task="part of speech", depth=2)) == 1
    assert float(result.untrained_gain.sel(task="part of speech").max()) < 0.2
    # Ten words are learnt by heart at every depth: the control is at its ceiling, and selectivity follows accuracy.
    selective = result.selectivity.sel(task="part of speech")
    assert float(selective.sel(depth=2) - selective.sel(depth=1)) == pytest.approx(0.25, abs=0.06)
    shorter = result.compression.sel(task="part of speech")
    assert float(shorter.sel(depth=2)) > 1.3 * float(shorter.sel(depth=1))
    said = said_of(list(syntax_probe.claims(result)), "gain", task="part of speech")
    assert said.significant
    assert said.select["depth"] in (2, 3)


def test_where_nothing_is_planted_nothing_is_claimed() -> None:
    result = run(part_of_speech.part_of_speech(strength=0.0), part_of_speech.treebank(documents=30))

    said = said_of(list(syntax_probe.claims(result)), "gain", task="part of speech")
    assert said.significant is False
    assert said.text.startswith("No detectable gain over the word type in decoding part of speech")


def _design(text: str, **settings: Any) -> tuple[Design, xr.Dataset]:
    chosen = syntax_probe.Settings(**({"fewest": 5} | settings))
    job = prepare(Request("syntax_probe", model=zoo.layered("llama"), treebank=text))
    items = list(syntax_probe.STAGES[0].items(job.inputs, chosen, {}))
    from layerscope.results.combine import concatenate

    words = concatenate([syntax_probe.STAGES[0].measure(job.model, item, chosen, {}) for item in items])
    return (
        design_of(words, tasks=chosen.tasks, next_word=chosen.next_word, fewest=chosen.fewest),
        words,
    )


def test_no_document_is_trained_on_and_tested_on(text: str) -> None:
    design, _ = _design(text, draws=3)

    tested = set(design.document[design.tested].tolist())
    for draw in range(3):
        learnt = design.learnt(draw)
        assert not tested & set(design.document[learnt].tolist())
        assert len(learnt) > 50
        # Documents stand together: the online code sends them whole.
        changes = np.count_nonzero(np.diff(design.document[learnt]))
        assert changes == len(set(design.document[learnt].tolist())) - 1


def test_parts_of_a_treebank_are_kept(tmp_path: Path) -> None:
    for part, seed in (("train", 1), ("dev", 2), ("test", 3)):
        whole = treebanks.small(documents=6, seed=seed).replace("tale-", f"{part}tale-")
        (tmp_path / f"x-{part}.conllu").write_text(whole.replace("report-", f"{part}report-"))

    design, _ = _design(str(tmp_path))

    names = np.array(design.documents)
    assert all(name.startswith("test") for name in names[design.document[design.tested]])
    assert all(name.startswith("train") for name in names[design.document[design.learnt(0)]])


def test_the_next_word_s_label_is_asked_within_the_sentence_only(text: str) -> None:
    design, words = _design(text)
    names = [task.name for task in design.tasks]
    this, following = names.index("part of speech"), names.index("next part of speech")
    classes = [design.tasks[row].classes for row in (this, following)]
    ends = np.cumsum(words.sentence_words.values) - 1

    assert (design.labels[following, ends] == -1).all()
    inside = np.setdiff1d(np.arange(design.labels.shape[1]), ends)
    for word in inside[:200]:
        one, other = design.labels[this, word + 1], design.labels[following, word]
        assert classes[0][one] == classes[1][other]


def test_genres_of_a_treebank_are_a_task(text: str) -> None:
    design, _ = _design(text)

    task = next(task for task in design.tasks if task.name == "genre")
    assert task.classes == ("report", "tale")
    assert "next genre" not in [task.name for task in design.tasks]


def test_a_label_of_documents_has_no_selectivity_by_word_types(text: str) -> None:
    result = run(zoo.layered("gpt2"), text, untrained=False, code=False, tasks=["relation", "genre"])

    assert np.isfinite(result.selectivity.sel(task="relation")).all()
    assert np.isnan(result.selectivity.sel(task="genre")).all()
    assert np.isnan(result.control_accuracy.sel(task="genre")).all()
    drawn = syntax_probe.draw(result)["Selectivity: this word"]
    assert [trace.name for trace in drawn.data if trace.showlegend is not False and trace.name] == [
        "dependency relation",
        "the control",
    ]


def test_the_word_type_baseline_counts_words(text: str) -> None:
    design, _ = _design(text)
    row = [task.name for task in design.tasks].index("part of speech")

    right = baselines(design, 0)["type"][1, row]

    assert np.nanmean(right) == 1.0  # every word of this treebank has one part of speech


def test_control_labels_belong_to_the_word_asked_about(text: str) -> None:
    design, _ = _design(text)
    control = design.control(0, 0)

    for task, labels in zip(design.tasks, control, strict=True):
        types = design.next_types if task.shift else design.types
        for word in set(types[labels >= 0].tolist()):
            assert len(set(labels[(types == word) & (labels >= 0)].tolist())) == 1


def test_words_of_several_tokens_are_read_at_both_ends(text: str) -> None:
    text = text.replace("fox", "foxglove").replace("met", "remembered")
    result = run(zoo.layered("llama"), text, untrained=False, code=False)

    assert {"first_piece_accuracy", "last_piece_accuracy"} <= set(result.data_vars)
    assert not np.array_equal(result.first_piece_accuracy, result.last_piece_accuracy)
    only_last = run(zoo.layered("llama"), text, untrained=False, code=False, pieces=["last"])
    assert "first_piece_accuracy" not in only_last
    np.testing.assert_array_equal(only_last.accuracy, result.accuracy)


def test_one_to_one_keeps_sentences_of_whole_words_only() -> None:
    model = part_of_speech.part_of_speech()
    every = run(model, part_of_speech.treebank(documents=10), kept_words="one_to_one", untrained=False)
    assert "first_piece_accuracy" not in every

    with pytest.raises(LayerscopeError, match="split by document"):
        # Every sentence holds `the`, and so a word of several tokens.
        run(zoo.layered("llama"), treebanks.small().replace("the", "thereof"), kept_words="one_to_one")


def test_the_truncated_model_hands_its_head_the_normed_state(text: str) -> None:
    model = zoo.layered("gpt2")
    result = run(model, text, read="truncated", untrained=False, code=False, controls=False)

    plain = run(model, text, untrained=False, code=False, controls=False)

    assert not np.allclose(result.loss, plain.loss)
    assert np.isfinite(result.loss).all()
    model.refused["unembed"] = "not today"
    with pytest.raises(LayerscopeError, match="not today"):
        run(model, text, read="truncated")


def test_draws_are_averaged_and_their_spread_is_told(text: str) -> None:
    result = run(zoo.layered("gpt2"), text, draws=3, untrained=False, code=False, train_words=60)

    assert float(result.spread_over_draws.max()) > 0
    assert "spread_over_draws" not in run(zoo.layered("gpt2"), text, untrained=False, code=False)


def test_final_punctuation_may_be_a_label_of_its_own() -> None:
    row = "{}\t{}\t{}\t{}\t{}\t_\t{}\tdep\t_\t_"
    sentence = "\n".join(
        row.format(i, form, form, tag, tag, 0 if i == 1 else 1)
        for i, (form, tag) in enumerate([("the", "DET"), (",", "PUNCT"), ("dog", "NOUN"), (".", "PUNCT")], 1)
    )
    text = "\n\n".join(f"# newdoc id = d{i}\n{sentence}" for i in range(40))

    with_final, _ = _design(text, final_punctuation=True)
    without, _ = _design(text)

    assert "FINAL" in with_final.tasks[0].classes
    assert "FINAL" not in without.tasks[0].classes


def test_labels_too_rare_to_train_on_are_listed(text: str) -> None:
    result = run(zoo.layered("gpt2"), text.replace("\tVBD\t", "\tVBX\t", 2), untrained=False)

    cautions = " ".join(read_json(result, "cautions"))
    assert "fine part of speech: 2 words have labels too rare to train on (VBX)" in cautions


def test_labels_that_only_tested_words_have_are_listed_and_not_asked_about(tmp_path: Path) -> None:
    whole = treebanks.small(documents=8, seed=1)
    (tmp_path / "x-train.conllu").write_text(whole)
    unseen = treebanks.small(documents=8, seed=2).replace("tale-", "test-").replace("report-", "tested-")
    (tmp_path / "x-test.conllu").write_text(unseen.replace("\tDET\t", "\tNEW\t"))

    result = run(zoo.layered("gpt2"), str(tmp_path), untrained=False, code=False, tasks=["part of speech"])

    cautions = " ".join(read_json(result, "cautions"))
    assert "words have labels too rare to train on" in cautions
    assert "NEW" in cautions
    assert "NEW" not in read_json(result, "classes")["part of speech"]
    assert (result.label.sel(task="part of speech").values == -1).any()
    assert np.isfinite(result.loss).all()


def test_labels_that_are_all_unseen_in_training_are_refused(tmp_path: Path) -> None:
    whole = treebanks.small(documents=8, seed=1)
    (tmp_path / "x-train.conllu").write_text(whole)
    other = treebanks.small(documents=8, seed=2).replace("tale-", "test-").replace("report-", "tested-")
    for tag in {line.split("\t")[3] for line in other.split("\n") if line.count("\t") == 9}:
        other = other.replace(f"\t{tag}\t", f"\tX{tag}\t")
    (tmp_path / "x-test.conllu").write_text(other)

    with pytest.raises(LayerscopeError, match="unseen in training") as refused:
        run(zoo.layered("gpt2"), str(tmp_path), untrained=False, code=False, tasks=["part of speech"])
    assert "to learn from, ADJ, ADP, DET" in str(refused.value)
    assert "to test on, XADJ, XADP, XDET" in str(refused.value)

    result = run(zoo.layered("gpt2"), str(tmp_path), untrained=False, code=False)
    assert "part of speech" not in result.task.values
    cautions = " ".join(read_json(result, "cautions"))
    assert "part of speech is not asked about" in cautions
    assert "or no tested word has one of them" in cautions


def test_columns_that_cannot_be_asked_about_are_refused_before_anything_is_measured(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syntax_probe.measure, "words_of", None)

    with pytest.raises(LayerscopeError, match="label 'tongue'"):
        run(zoo.layered("gpt2"), text, passages=_two_languages(), label_columns=["tongue"])


def test_what_a_treebank_does_not_annotate_is_said(text: str) -> None:
    blank = "\n".join(_without_fine_tags(line) for line in text.split("\n"))

    result = run(zoo.layered("gpt2"), blank, untrained=False, code=False, controls=False)

    assert "fine part of speech" not in result.task.values
    said = "fine part of speech is not asked about: this treebank does not annotate it"
    assert said in read_json(result, "cautions")


def _without_fine_tags(line: str) -> str:
    columns = line.split("\t")
    return "\t".join([*columns[:4], "_", *columns[5:]]) if len(columns) == 10 else line


def test_where_the_head_stands_can_be_asked_with_a_rule_for_each_word_type_as_control(text: str) -> None:
    design, words = _design(text, tasks=["head"])
    control = design.control(0, 0)
    sentences = {sentence.name: sentence for sentence in load_treebank(text)}
    heads = [head for name in words.sentence.values for head in sentences[str(name)].head]
    starts = np.cumsum(words.sentence_words.values) - words.sentence_words.values
    places = np.arange(len(heads)) - np.repeat(starts, words.sentence_words.values)  # of each word, from 0
    ends = np.repeat(words.sentence_words.values, words.sentence_words.values) - 1

    def label(distance: int) -> str:
        side = "right" if distance > 0 else "left"
        sizes = {1: "1", 2: "2", 3: "3 to 5", 4: "3 to 5", 5: "3 to 5"}
        return "root" if distance == 0 else f"{sizes.get(abs(distance), '6 or more')} {side}"

    classes = design.tasks[0].classes
    assert [task.name for task in design.tasks] == ["head", "next head"]
    rules: dict[str, set[str]] = {}
    for word, head in enumerate(heads):
        if design.labels[0, word] >= 0:
            true = label(head - 1 - places[word]) if head else "root"
            assert classes[design.labels[0, word]] == true
        if control[0, word] >= 0:
            here = classes[control[0, word]]
            rule = {"itself": 0, "first": -places[word], "last": ends[word] - places[word]}
            fitting = {name for name, distance in rule.items() if label(int(distance)) == here}
            assert fitting
            kind = str(design.types[word])
            rules[kind] = rules.get(kind, {"itself", "first", "last"}) & fitting
    assert all(rules.values())  # one rule explains all words of a type
    assert len(set().union(*[rule for rule in rules.values() if len(rule) == 1])) > 1

    result = run(zoo.layered("gpt2"), text, untrained=False, code=False, tasks=["head"])
    assert np.isfinite(result.selectivity.sel(task="head")).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fewest": 500}, "no question can be asked"),
        ({"announced": "("}, "pattern of announced labels"),
        ({"announced": "Speech"}, "no group"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(text: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(LayerscopeError, match=words):
        ls.run(
            "syntax_probe",
            zoo.layered("gpt2"),
            treebank=text,
            passages=["the red fox"] * 3,
            **(SMALL | {"code": False} | change),
        )


def test_one_document_cannot_be_split() -> None:
    with pytest.raises(LayerscopeError, match="cannot be split by document"):
        run(zoo.layered("gpt2"), treebanks.small(documents=2))


def _announcing(documents: int = 24) -> list[dict[str, str]]:
    """Passages whose first word is a dialect, and whose other words are the same for all."""
    rest = "the dog ran to the town and the fox met a bird in the old town of stone"
    return [
        {"id": f"p{i}", "text": f"Speech: {'red' if i % 2 else 'small'} {rest}", "genre": "x"}
        for i in range(documents)
    ]


def test_a_label_that_is_carried_is_read_and_one_that_is_not_is_not(text: str) -> None:
    result = ls.run(
        "syntax_probe",
        zoo.layered("llama"),
        treebank=text,
        passages=_announcing(),
        **(SMALL | {"untrained": False, "code": False}),
    ).sel(label_kind="announced")

    # At depth 0 a later token's state is its own embedding: the same for both dialects, so held-out
    # passages are told apart no better than by a coin that knows the folds. Attention brings it at once.
    assert float(result.label_accuracy.sel(since=4, depth=0)) <= 0.6
    assert float(result.label_accuracy.sel(since=4, depth=4)) == 1.0
    assert float(result.label_null.sel(since=4, depth=4)) < 0.9
    assert result.since.values.tolist()[:3] == [1, 2, 4]


def _two_languages(documents: int = 24) -> list[dict[str, str]]:
    """Passages of two languages that differ in their article alone; nouns are drawn at random from the same four."""
    draw = np.random.default_rng(0).choice
    articles = {"northern": "the", "southern": "of"}
    return [
        {
            "text": " ".join(
                "{0} {1} met {0} {2} and".format(articles[language], *draw(["fox", "dog", "bird", "town"], 2))
                for _ in range(4)
            ),
            "language": language,
            "year": str(1900 + number),
        }
        for number, language in enumerate(["northern", "southern"] * (documents // 2))
    ]


def test_a_language_that_a_column_names_is_carried_from_the_words_before(tmp_path: Path, text: str) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text("\n".join(json.dumps(passage) for passage in _two_languages()))
    result = ls.run(
        "syntax_probe",
        zoo.layered("llama"),
        treebank=text,
        passages=str(path),
        **(SMALL | {"untrained": False, "code": False}),
    )

    assert result.label_kind.values.tolist() == ["language"]  # every passage has a year of its own
    after = result.sel(label_kind="language")
    # The eighth token is a noun, and nouns are those of both languages: only what came before tells them apart.
    assert float(after.label_accuracy.sel(since=8, depth=0)) <= 0.75
    assert float(after.label_accuracy.sel(since=8, depth=4)) >= 0.9
    assert float(after.label_p.sel(since=8, depth=4)) < 0.05
    said = [claim.text for claim in syntax_probe.claims(result)]
    assert any("anguage of the passage " in line for line in said)
    assert "When is the passage's language decodable?" in syntax_probe.draw(result)


def test_places_that_most_passages_do_not_reach_are_left_out(text: str) -> None:
    passages = _two_languages()
    longer = [passage | {"text": passage["text"] + " the dog" * 20} for passage in passages[:6]]

    result = ls.run(
        "syntax_probe",
        zoo.layered("gpt2"),
        treebank=text,
        passages=longer + passages[6:],
        **(SMALL | {"untrained": False, "code": False, "controls": False}),
    )

    assert result.since.values.tolist() == [1, 2, 4, 8, 16]
    assert result.label_passages.values.tolist() == [[24] * 5]


def test_a_column_that_cannot_be_asked_about_is_refused_with_what_there_is(text: str) -> None:
    for column, message in (("tongue", "the labels genre, announced, language, year"), ("year", "1900 1")):
        with pytest.raises(LayerscopeError, match="cannot be grouped by the label") as refused:
            ls.run(
                "syntax_probe",
                zoo.layered("gpt2"),
                treebank=text,
                passages=_two_languages(),
                **(SMALL | {"untrained": False, "code": False, "label_columns": [column]}),
            )
        assert message in str(refused.value)


def test_passages_without_a_genre_are_no_genre(text: str) -> None:
    passages = [
        {"id": f"p{i}", "text": "the red fox met the dog"} | ({"genre": "x"} if i % 2 else {})
        for i in range(12)
    ]

    result = ls.run(
        "syntax_probe",
        zoo.layered("gpt2"),
        treebank=text,
        passages=passages,
        **(SMALL | {"untrained": False, "code": False}),
    )

    assert "label_accuracy" not in result
    said = "the genre of passages is not asked about: fewer than two labels have 4 passages (1 label, 6 passages)"
    assert said in read_json(result, "cautions")


def test_without_passages_or_labels_nothing_is_said_about_documents(text: str) -> None:
    result = run(zoo.layered("gpt2"), text)

    assert "label_accuracy" not in result


def test_a_run_on_a_treebank_is_recorded_and_comes_out_the_same_again(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bank.conllu").write_text(text)
    settings = {"resamples": 20, "fewest": 5, "code": False}
    job = prepare(
        Request(
            "syntax_probe",
            model=zoo.layered("llama"),
            treebank=str(tmp_path / "bank.conllu"),
            settings=settings,
        )
    )
    folder = running.run(job, tmp_path / "runs", Silent())
    assert folder.record.named["treebank"].endswith("bank.conllu")
    assert folder.inputs["treebank"]

    # Replayed without a cache: the bytes may not depend on it.
    monkeypatch.setenv("LAYERSCOPE_STATE_CACHE", "off")
    found = running.replay(folder.path, model=job.model)

    assert found.verdict == "bitwise", found.changed
    other = prepare(
        Request("syntax_probe", model=job.model, treebank=text.replace("fox", "dog"), settings=settings)
    )
    assert other.record.asked.texts != job.record.asked.texts


def test_no_figure_has_two_lines_of_one_colour(text: str) -> None:
    result = run(
        zoo.layered("gpt2"), text, untrained=False, tasks=["part of speech", "relation", "head", "genre"]
    )

    for name, figure in syntax_probe.draw(result).items():
        panels = ("What is decodable", "Loss", "Macro-F1")  # their colours are repeated in each
        if not name.startswith(panels):
            colours = [
                trace.line.color
                for trace in figure.data
                if trace.mode == "lines" and trace.showlegend is not False
            ]
            assert len(set(colours)) == len(colours), name
