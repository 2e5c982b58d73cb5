"""Every mistake and mishap that a person can put right: found, expected, try; exit code 2; nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from quick import Command, Outcome


def assert_told(outcome: Outcome, *words: str) -> None:
    """The one shape of an error that a person can put right."""
    assert outcome.code == 2, outcome
    lines = outcome.err.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("layerscope: "))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["found", "expected", "try"], (
        outcome.err
    )
    assert all(line.strip() for line in lines[start : start + 4])
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Any attempt to reach the network fails, and is remembered."""
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("the network was touched")

    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:  # by which processes of one machine speak with each other
            refuse(self, address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield asked
    assert asked == []


@pytest.fixture
def trace(command: Command, tmp_path: Path, tiny: Path, prompts_file: Path, quick_settings: list[str]) -> Any:
    """A causal trace of the tiny model; options given here come last and win."""

    def call(*more: object, model: object = tiny, prompts: object = prompts_file) -> Outcome:
        words = ["--model", model, "--prompts", prompts, "--out", tmp_path / "runs", *quick_settings]
        return command("run", "causal_trace", *words, *more)

    return call


Trace = Callable[..., Outcome]


def test_without_a_fault_it_runs_and_touches_no_network(trace: Trace, no_network: list[Any]) -> None:
    outcome = trace()

    assert outcome.code == 0
    assert "next: layerscope report" in outcome.out
    assert no_network == []


# -- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "no such model",
        "./missing",
        "/nowhere/at/all",
        "a/b/c",
        "~nobody/x",
        "x" * 300,
    ],
)
def test_an_unknown_model_is_told(trace: Trace, name: str) -> None:
    assert_told(trace(model=name), "there is no such model")


def test_a_folder_without_weights_is_told(trace: Trace, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "model").mkdir()
    assert_told(trace(model=tmp_path / "model"), "no config.json")

    shutil.copy(tiny / "config.json", tmp_path / "model")
    assert_told(trace(model=tmp_path / "model"), "no .safetensors file")


def test_pickled_weights_are_never_read(trace: Trace, tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(zoo.make("gpt2").state_dict(), tmp_path / "model" / "pytorch_model.bin")

    assert_told(trace(model=tmp_path / "model"), "pytorch_model.bin", "pickle")


def test_an_encoder_is_told(trace: Trace, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    shape = {"vocab_size": zoo.VOCABULARY, "hidden_size": 16, "intermediate_size": 16}
    config = BertConfig(**shape, num_hidden_layers=2, num_attention_heads=2)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    zoo.tokenizer().save_pretrained(tmp_path / "bert")

    assert_told(trace(model=tmp_path / "bert"), "not a decoder-only model", "BertForMaskedLM")


def test_an_encoder_that_calls_itself_a_decoder_is_told(trace: Trace, tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    shape = {"vocab_size": zoo.VOCABULARY, "hidden_size": 16, "intermediate_size": 16}
    config = BertConfig(**shape, num_hidden_layers=2, num_attention_heads=2, is_decoder=False)
    BertLMHeadModel(config).save_pretrained(tmp_path / "bert")
    zoo.tokenizer().save_pretrained(tmp_path / "bert")

    assert_told(trace(model=tmp_path / "bert"), "looks ahead")


def test_weights_that_are_not_numbers_are_named(trace: Trace, tmp_path: Path) -> None:
    model = zoo.make("gpt2")
    with torch.no_grad():
        model.transformer.h[2].mlp.c_fc.weight[3, 5] = float("nan")
    model.save_pretrained(tmp_path / "model")
    zoo.tokenizer().save_pretrained(tmp_path / "model")

    assert_told(trace(model=tmp_path / "model"), "NaN", "transformer.h.2.mlp.c_fc.weight")


def test_damaged_weights_and_a_missing_tokenizer_are_told(trace: Trace, tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "a")
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(tiny, tmp_path / "b", ignore=shutil.ignore_patterns("tokenizer*"))

    assert_told(trace(model=tmp_path / "a"), "cannot be loaded")
    assert_told(trace(model=tmp_path / "b"), "tokenizer")


# -- prompts --------------------------------------------------------------------------------------


def written(tmp_path: Path, *lines: object) -> Path:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


GOOD = {"prompt": "the red fox met the old dog in", "subject": "fox", "answer": ""}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), ["empty"]),
        ((GOOD, "{broken"), ["line 2"]),
        ((GOOD, GOOD, {"subject": "fox", "answer": ""}), ["line 3", '"prompt"']),
        (({"prompt": "the red fox met", "answer": ""},), ["line 1", "subject"]),
        (({"prompt": "the red fox met", "subject": "fox"},), ["line 1", '"answer"']),
        (({**GOOD, "subject": "wolf"},), ["does not occur", "line 1"]),
        (({**GOOD, "prompt": ""},), ["is empty", "line 1"]),
        (({**GOOD, "prompt": 3},), ["line 1", "prompt"]),
        (({**GOOD, "prompt": "the " * 80 + "fox met"},), ["context", "64"]),
        (({**GOOD, "subject": "in"},), ["last token"]),
    ],
)
def test_what_is_wrong_with_a_prompt_file_is_told(
    trace: Trace, tmp_path: Path, lines: tuple[object, ...], words: list[str]
) -> None:
    assert_told(trace(prompts=written(tmp_path, *lines)), *words)
    assert not list(tmp_path.rglob("result.nc"))


def test_a_subject_at_the_first_token_is_told_where_no_bos_stands_before_it(
    trace: Trace, tmp_path: Path
) -> None:
    first = written(tmp_path, {**GOOD, "subject": "the red"})

    assert trace("--bos", "always", prompts=first).code == 0
    assert_told(trace("--bos", "never", prompts=first), "first token", "--bos always")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.jsonl", ["missing.jsonl"]),
        ("", ["prompt"]),
        ("no stars in this", ["*stars*"]),
        ("englsh", ["english"]),
    ],
)
def test_prompts_that_are_nowhere_are_told(trace: Trace, name: str, words: list[str]) -> None:
    assert_told(trace(prompts=name), *words)


def test_a_folder_in_the_place_of_prompts_is_told_before_the_model_is_loaded(
    trace: Trace, tmp_path: Path
) -> None:
    assert_told(trace(prompts=tmp_path, model="no such model"), "this is a folder")


def test_a_long_starred_text_is_no_file_name(trace: Trace) -> None:
    assert trace(prompts="the *red fox* met " + "the dog " * 10 + "the town of " * 6).code == 0


# -- settings and options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "noise=0"], ["noise", "positive"]),
        (["--set", "noise=-1"], ["noise", "positive"]),
        (["--set", "noise=0sd"], ["noise", "positive"]),
        (["--set", "noise=NaN"], ["noise"]),
        (["--set", "samples=0"], ["samples", "above 0"]),
        (["--set", "samples=-3"], ["samples", "above 0"]),
        (["--set", "samples=many"], ["samples", "integer"]),
        (["--set", "samples=2.5"], ["samples", "integer"]),
        (["--set", "sampels=3"], ["sampels", "samples"]),
        (["--set", "samples=1e12"], ["samples", "at most 100,000"]),
        (["--set", "resamples=1000000000000"], ["resamples", "at most 100,000"]),
        (["--set", "window=1000000000"], ["window", "at most 1,000,000"]),
        (["--set", f"samples={'9' * 5000}"], ["samples"]),
        (["--set", f"seed={'9' * 5000}"], ["seed"]),
        (["--set", f"seed={2**64}"], ["seed"]),
        (["--threads", "100000"], ["'--threads'", "1024"]),
        (["--workers", "100000"], ["--workers", "at most 1024"]),
        (["--twins", "100000000"], ["'--twins'", "1000"]),
        (["--set", "noised=first"], ["noised", "subject"]),
        (["--set", "samples"], ["key=value"]),
        (["--set", "=3"], ["key=value"]),
        (["--seed", "-1"], ["seed"]),
        (["--device", "abacus"], ["abacus", "--device cpu"]),
        (["--device", "cuda:99"], ["cuda:99", "--device cpu"]),
        (["--dtype", "int8"], ["int8", "bfloat16"]),
        (["--bos", "perhaps"], ["no such token", "perhaps", "never"]),
        (["--passages", "english"], ["does not read passages"]),
    ],
)
def test_a_wrong_setting_or_option_is_told(trace: Trace, options: list[str], words: list[str]) -> None:
    assert_told(trace(*options), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "0"], ["invalid value for '--limit'", "greater than or equal to 1"]),
        (["--limit", "9" * 5000], ["invalid value for '--limit'"]),
        (["--engine", "abacus"], ["'--engine'", "abacus", "local"]),
        (["--no-such"], ["no such option: --no-such"]),
        (["--threads"], ["'--threads' requires an argument"]),
        (["another word"], ["unexpected extra argument"]),
    ],
)
def test_options_that_do_not_exist_are_told_with_the_usage(
    trace: Trace, options: list[str], words: list[str]
) -> None:
    assert_told(trace(*options), "[OPTIONS]", "--help", *words)


def test_a_command_that_does_not_exist_is_told(command: Command) -> None:
    assert_told(command("rum"), "no such command 'rum'", "--help")


@pytest.mark.parametrize("words", [["run"], ["plan"]])
def test_an_unknown_experiment_is_told_with_the_nearest_name(command: Command, words: list[str]) -> None:
    assert_told(command(*words, "causal_trase"), "no such experiment", "causal_trace")


# -- disks and run folders ------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300])
def test_an_output_folder_that_cannot_be_is_told_before_the_model_is_loaded(
    trace: Trace, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("mine")

    assert_told(trace("--out", tmp_path / place, model="no such model"), "cannot write")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unwritable_output_folder_is_told(trace: Trace) -> None:
    assert_told(trace("--out", "/proc/layerscope"), "cannot write /proc/layerscope")


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """No file may grow beyond so many bytes, as if the disk were full; by the system itself."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_on_a_full_disk_what_was_computed_is_kept_and_goes_on(
    trace: Trace, tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    small_disk(20_000)  # parts fit, result.nc does not
    assert_told(trace(), "cannot write", "the disk is full", "result.nc")
    assert len(list(tmp_path.rglob("*.npz"))) == 12

    small_disk(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    outcome = trace()
    assert outcome.code == 0
    assert "4 kept from before" in outcome.err


READERS = ["show", "resume", "replay", "export", "report"]


def test_what_is_no_run_folder_is_told_by_every_command(command: Command, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    for name in READERS:
        assert_told(command(name, tmp_path), "not a run folder")
        assert_told(command(name, tmp_path / "report.html"), "not a run folder")


def test_a_newer_run_folder_is_told_by_every_command(
    command: Command, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parent)  # a report of such a run is written into ./runs
    record = json.loads((saved / "run.json").read_text())
    (saved / "run.json").write_text(json.dumps({**record, "schema_number": 99}))
    for name in READERS:
        assert_told(command(name, saved), "newer Layerscope", "schema 99")


def test_a_damaged_record_is_told_by_every_command_and_listed(
    command: Command, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parent)  # a report of such a run is written into ./runs
    (saved / "run.json").write_text("{")
    for name in READERS:
        assert_told(command(name, saved), "record of this run is damaged")

    assert "damaged" in command("list", "runs", "--out", saved.parent).out


def test_a_damaged_result_is_told_and_comes_back_from_its_parts(command: Command, saved: Path) -> None:
    whole = (saved / "result.nc").read_bytes()
    (saved / "result.nc").write_bytes(whole[: len(whole) // 2])
    for name in ("show", "replay", "export"):
        assert_told(command(name, saved), "damaged", "delete that file")

    (saved / "result.nc").unlink()
    assert command("resume", saved).code == 0
    assert command("show", saved).code == 0


def test_a_damaged_part_is_told_and_only_it_is_lost(command: Command, saved: Path) -> None:
    part = saved / "parts" / "trace" / "000001.npz"
    part.write_bytes(part.read_bytes()[:-100])
    (saved / "result.nc").unlink()

    assert_told(command("resume", saved), "trace/000001.npz", "delete that one file")
    part.unlink()
    outcome = command("resume", saved)
    assert outcome.code == 0
    assert "3 kept from before" in outcome.err


def test_a_run_folder_that_another_process_writes_is_told(
    command: Command, trace: Trace, saved: Path
) -> None:
    (saved / "result.nc").unlink()
    code = (
        "import sys, pathlib, layerscope.results.store as s\n"
        f"with s.RunFolder(pathlib.Path({str(saved)!r})).writing():\n    print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for outcome in (command("resume", saved), trace()):
            assert_told(outcome, "another process is writing", f"process {other.pid}")
        other.kill()
    assert trace().code == 0


def test_exporting_a_run_without_a_result_says_how_to_get_one(command: Command, saved: Path) -> None:
    (saved / "result.nc").unlink()

    assert_told(command("export", saved), f"layerscope resume {saved}")


def test_ctrl_c_keeps_the_parts_and_says_so(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerscope.engines.local import LocalEngine

    outcome_of, heard = LocalEngine.outcome, 0

    def stopped(self: LocalEngine) -> Any:
        nonlocal heard
        heard += 1
        if heard == 3:
            raise KeyboardInterrupt
        return outcome_of(self)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(LocalEngine, "outcome", stopped)
        outcome = trace()
    assert outcome.code == 130
    assert "what was computed is kept" in outcome.err
    assert "Traceback" not in outcome.err
    assert len(list(tmp_path.rglob("*.npz"))) == 2

    assert "2 kept from before" in trace().err


def test_one_experiment_that_cannot_run_does_not_keep_the_others_off_the_page(
    command: Command, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerscope import experiments

    monkeypatch.setattr(experiments, "names", lambda: ["causal_trace", "hidden_states"])
    wrong = written(tmp_path, {**GOOD, "answer": " zzz"})

    outcome = command("report", "--model", tiny, "--prompts", wrong, "--out", tmp_path / "runs", "--quick")

    assert_told(outcome, "causal_trace", "no prompt is left to trace")
    page = (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert "hidden_states" in page


def test_a_length_beyond_the_context_is_refused_and_the_default_gives_way(
    command: Command, tmp_path: Path, tiny: Path
) -> None:
    asked = ("run", "hidden_states", "--model", tiny, "--out", tmp_path, "--limit", 1)

    assert_told(command(*asked, "--longest", 100_000), "longer than the model's context", "--longest")
    assert command(*asked).code == 0


# -- the real thing, in a process of its own ------------------------------------------------------


def in_a_process(*words: object, cwd: Path, encoding: str = "utf-8") -> Outcome:
    done = subprocess.run(
        [sys.executable, "-m", "layerscope", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_mistake_ends_a_real_process_with_2_and_words(tmp_path: Path) -> None:
    assert_told(in_a_process("run", "causal_trase", cwd=tmp_path), "causal_trace")
    assert_told(in_a_process("show", os.fsdecode(b"\xff<b>"), cwd=tmp_path), "not a run folder")
    no_text = in_a_process("list", "runs", "--out", os.fsdecode(b"\xff<b>"), cwd=tmp_path)
    assert (no_text.code, no_text.out) == (0, "no runs below <U+DCFF><b>\n")
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_knows_ascii_only_is_served(tmp_path: Path, tiny: Path, prompts_file: Path) -> None:
    outcome = in_a_process("check-prompts", prompts_file, "--model", tiny, cwd=tmp_path, encoding="ascii")

    assert outcome.code == 0, outcome.err
    assert "4 of 4 prompts would be traced" in outcome.out
    assert "the|" in outcome.out


NOWHERE = (
    "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/nowhere']; "
    "from layerscope.cli import main; main()"
)
"""A machine without any folder for temporary files."""


def unprivileged(command: str, cwd: Path) -> Outcome:
    """A shell command line without root's right to pass over permissions; $L is Layerscope, $P Python."""
    names = {
        "P": sys.executable,
        "L": f"{sys.executable} -m layerscope",
        "NOWHERE": NOWHERE,
        "OMP_NUM_THREADS": "1",
    }
    words = ["bash", "-c", command]
    if os.geteuid() == 0:
        if shutil.which("capsh") is None:
            pytest.skip("root may read everything, and capsh is not there to take that right away")
        words = ["capsh", "--drop=cap_dac_override,cap_dac_read_search", "--", *words[1:]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=os.environ | names)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("$L list > /dev/full", ["the output cannot be written", "full"]),
        ("$L --help > /dev/full", ["the output cannot be written", "full"]),
        ("$L show RUN > /dev/full", ["the output cannot be written", "full"]),
        ('$P -c "$NOWHERE" replay RUN', ["no folder for temporary files", "TMPDIR"]),
    ],
)
def test_what_the_system_refuses_is_told(saved: Path, tmp_path: Path, command: str, words: list[str]) -> None:
    assert_told(unprivileged(command.replace("RUN", str(saved)), tmp_path), *words)


def test_where_nothing_can_be_told_the_code_still_tells(tmp_path: Path) -> None:
    assert unprivileged("$L show nowhere 2> /dev/full", tmp_path).code == 2
    assert unprivileged("$L list commands | head -1", tmp_path).err == ""
