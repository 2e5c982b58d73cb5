"""What all tests share: one thread, a small saved model with its tokenizer, prompts that it can answer."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MKL_CBWR", "AVX512,STRICT")  # as importing layerscope before torch does

import torch

from quick import PROMPTS, QUICK, Command, Outcome

pytest.register_assert_rewrite("turned")

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _states_are_kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share one cache of states of their own, and never touch the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSCOPE_STATE_CACHE", str(tmp_path_factory.mktemp("states")))
        patch.setenv("LAYERSCOPE_VERDICTS", "off")  # a broken check must not be remembered
        patch.setenv("LAYERSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 of four layers and its tokenizer. Never written to: copy it."""
    import zoo

    folder = tmp_path_factory.mktemp("models") / "tiny"
    zoo.make("gpt2").save_pretrained(folder)
    zoo.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny: Path) -> Any:
    """That model, loaded and checked."""
    from layerscope.models.load import load_model

    return load_model(str(tiny))


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four prompts that any model gets right, because it is asked for its own top-1."""
    file = tmp_path_factory.mktemp("texts") / "prompts.jsonl"
    file.write_text("".join(json.dumps({**prompt, "answer": ""}) + "\n" for prompt in PROMPTS))
    return file


@pytest.fixture(scope="session")
def passages_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short passages."""
    file = tmp_path_factory.mktemp("texts") / "passages.jsonl"
    texts = [*(prompt["prompt"] for prompt in PROMPTS), "the old dog ran. a bird sang"]
    file.write_text("".join(json.dumps({"id": f"p{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return file


@pytest.fixture(scope="session")
def complete_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any, prompts_file: Path) -> Path:
    """A quick causal trace of the tiny model, carried out once. Never written to: see `saved`."""
    from layerscope.jobs import running
    from layerscope.jobs.prepare import prepare
    from layerscope.jobs.progress import Silent
    from layerscope.jobs.request import Request

    job = prepare(Request("causal_trace", model=tiny_model, prompts=str(prompts_file), settings=QUICK))
    return running.run(job, tmp_path_factory.mktemp("complete"), Silent()).path


@pytest.fixture
def saved(complete_run: Path, tmp_path: Path) -> Path:
    """A copy of that run, in tmp_path/runs."""
    return Path(shutil.copytree(complete_run, tmp_path / "runs" / complete_run.name))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process: arguments to exit code, stdout and stderr."""
    from layerscope import cli

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["layerscope", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return Outcome(int(end.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(scope="session")
def quick_settings() -> list[str]:
    """The quick settings as command-line options."""
    return [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
