"""What stands first: the tokenizer's own habit, else what lowers the loss of plain text, and who hears of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

import layerscope as ls
import zoo
from layerscope import LayerscopeError
from layerscope.jobs.standing_first import standing_first
from layerscope.models.untrained import untrained_twin
from layerscope.runs.first_token import loss_behind
from quick import Command

REAL = Path.home() / ".cache" / "real-models"
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "models"


def silent_tokenizer(template: str = "") -> PreTrainedTokenizerFast:
    """The small tokenizer with five special tokens, none of which it puts first by itself."""
    inner = copy.deepcopy(zoo.tokenizer().backend_tokenizer)
    inner.post_processor = None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", pad_token="<pad>")
    tokenizer.chat_template = template or None
    return tokenizer


def reads_well_behind(token: int, family: str = "gpt2") -> ls.LayeredModel:  # type: ignore[name-defined]
    """A random model whose predictions are flat behind one token, and sure and wrong behind anything else."""
    module = zoo.make(family, seed=token)
    with torch.no_grad():
        module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone() * 30)
    own = module.forward

    def flat_behind(input_ids: torch.Tensor, **options: object) -> object:
        found = own(input_ids, **options)
        found.logits = torch.where((input_ids[:, :1] == token)[..., None], found.logits * 0, found.logits)
        return found

    loaded = ls.load_model(module, tokenizer=silent_tokenizer())
    module.forward = flat_behind
    return loaded


def test_the_loss_is_that_of_the_same_tokens_whatever_stands_first() -> None:
    model = zoo.layered("gpt2")
    texts = [[5, 9, 30, 7], [8, 8, 100, 44]]
    firsts = (1, None, 0)
    for first, found in zip(firsts, loss_behind(model, firsts, texts), strict=True):
        ids = torch.tensor([([] if first is None else [first]) + text for text in texts])
        logs = model.logits(ids).log_softmax(-1)
        expected = [
            -sum(float(logs[row, len(ids[0]) - 4 + place - 1, text[place]]) for place in (1, 2, 3)) / 3
            for row, text in enumerate(texts)
        ]
        assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_what_the_tokenizer_puts_first_by_itself_stands_first_untried() -> None:
    found = standing_first(zoo.layered("llama"))

    assert (found.text, found.tried) == ("<bos>", ())
    assert "by itself" in found.reason


@pytest.mark.parametrize(("token", "text"), [(0, "<bos>"), (1, "<pad>")])
def test_the_token_behind_which_plain_text_is_read_best_stands_first(token: int, text: str) -> None:
    found = standing_first(reads_well_behind(token))

    assert found.text == text
    assert found.tried[0].text == text
    assert found.tried[0].high is not None
    assert found.tried[0].high < 0
    assert {one.text for one in found.tried} == {"", "<bos>", "<pad>"}


def test_a_random_model_has_nothing_first_and_an_instrument_that_needs_a_token_says_which_it_takes() -> None:
    model = ls.load_model(zoo.make("gpt2"), tokenizer=silent_tokenizer())
    found = standing_first(model)

    assert found.text is None
    assert found.best in ("<bos>", "<pad>")
    assert found.used(needed=False) == "never"
    assert found.used(needed=True) == found.best
    assert f"takes {found.best}" in found.said_of_need("truncated_context")


def test_a_token_that_opens_a_turn_of_the_chat_is_no_candidate() -> None:
    template = "{% for m in messages %}<pad>{{ m['content'] }}{% endfor %}<pad>"
    model = ls.load_model(zoo.make("gpt2"), tokenizer=silent_tokenizer(template))

    assert {one.text for one in standing_first(model).tried} == {"", "<bos>"}


def test_a_token_that_begins_the_chat_alone_is_one() -> None:
    template = "<bos>{% for m in messages %}<pad>{{ m['content'] }}{% endfor %}<pad>"
    model = ls.load_model(zoo.make("gpt2"), tokenizer=silent_tokenizer(template))

    assert {one.text for one in standing_first(model).tried} == {"", "<bos>"}


def test_the_choice_is_kept_by_weights_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = standing_first(ls.load_model(zoo.make("mistral", seed=7), tokenizer=silent_tokenizer()))
    again = ls.load_model(zoo.make("mistral", seed=7), tokenizer=silent_tokenizer())
    monkeypatch.setattr(again, "logits", None)

    assert standing_first(again) == first
    other = ls.load_model(zoo.make("mistral", seed=8), tokenizer=silent_tokenizer())
    monkeypatch.setattr(other, "logits", None)
    with pytest.raises(TypeError):
        standing_first(other)


def test_an_untrained_twin_reads_what_its_model_reads() -> None:
    model = reads_well_behind(1)
    twin = untrained_twin(model)

    assert standing_first(twin).text == "<pad>"


def test_the_choice_stands_in_the_record_and_decides_the_tokens(tmp_path: Path) -> None:
    model = reads_well_behind(1)
    ls.run(
        "hidden_states",
        model,
        passages=["the red fox met the old dog in the town"],
        out=tmp_path,
        progress=False,
    )
    (folder,) = tmp_path.iterdir()
    record = json.loads((folder / "run.json").read_text())

    assert record["asked"]["bos"]["text"] == "<pad>"
    assert record["asked"]["bos"]["policy"] == "auto"
    assert "lowest behind it" in record["standing_first"]["reason"]
    assert json.loads((folder / "inputs.json").read_text())["passages"][0]["tokens"]["ids"][0] == 1


def test_truncation_says_which_token_it_puts_first(tmp_path: Path) -> None:
    model = ls.load_model(zoo.make("gpt2"), tokenizer=silent_tokenizer())
    texts = ["the red fox met the old dog in the town of stone and the dog ran to the red town"]
    ls.run("context_reading", model, texts, ranges=(2, 4), out=tmp_path, progress=False)
    (folder,) = tmp_path.iterdir()
    record = json.loads((folder / "run.json").read_text())

    assert record["asked"]["bos"]["prepended"] is True
    assert record["cautions"]
    assert record["cautions"][0].startswith("context_reading needs a token to stand first and takes <")


def test_check_prompts_says_what_stands_first(command: Command, tiny: Path, prompts_file: Path) -> None:
    said = command("check-prompts", prompts_file, "--model", tiny)

    assert said.out.splitlines()[0] == "<bos> stands first: the tokenizer puts it there by itself"


def test_a_token_that_is_none_is_refused(command: Command, tiny: Path, prompts_file: Path) -> None:
    said = command("check-prompts", prompts_file, "--model", tiny, "--bos", "<|nothing|>")

    assert said.code == 2
    assert "no such token" in said.err


def test_the_bundled_model_has_its_end_of_text_first() -> None:
    assert standing_first(ls.load_model("bundled")).text == "<|endoftext|>"


@pytest.mark.parametrize(
    ("folder", "text"), [("stories260K", "<s>"), ("babyllama-tok105", "<s>"), ("english-12l", None)]
)
def test_real_small_models(folder: str, text: str | None) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"{folder} is not here")
    assert standing_first(ls.load_model(str(DATA / folder))).text == text


@pytest.mark.slow
def test_smollm2_reads_behind_its_end_of_text_and_not_behind_a_chat_token() -> None:
    folder = REAL / "smollm2-135m-instruct"
    if not folder.is_dir():
        pytest.skip("the real models are not here")
    model = ls.load_model(str(folder))
    found = standing_first(model)

    assert found.text == "<|endoftext|>"
    assert not {"<|im_start|>", "<|im_end|>"} & {one.text for one in found.tried}
    with pytest.raises(LayerscopeError, match="no such token"):
        standing_first(model, "<bos>")
