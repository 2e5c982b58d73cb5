from __future__ import annotations

import pytest

from layerscope.jobs.progress import Bar, PlainLines, Progress, Silent, TimeLeft, in_words


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_left_goes_by_size_and_by_this_session_only(clock: Clock) -> None:
    left = TimeLeft(size=100, done=40, clock=clock)
    assert left.seconds() is None

    clock.now += 8
    left.add(20)

    assert left.share == 0.6
    assert left.seconds() == pytest.approx(16.0)  # 20 in 8 s, 40 to go


def test_a_log_gets_plain_lines_now_and_then(clock: Clock) -> None:
    lines: list[str] = []
    progress = PlainLines(lines.append, every=5, clock=clock)
    progress.begin("trace", items=6, size=60, done_items=2, done_size=20)
    for _ in range(4):
        clock.now += 3
        progress.finished("x", 10)
    progress.end()

    assert lines == [
        "trace: 6 items, 2 kept from before",
        "trace: 4/6 items, 67%, 6 s left",
        "trace: 6/6 items, 100%",
    ]


def test_a_stage_without_items_is_complete(clock: Clock) -> None:
    assert TimeLeft(0, 0, clock).share == 1


@pytest.mark.parametrize("progress", [Silent(), Bar(), PlainLines()])
def test_every_kind_of_progress_can_be_told_everything(
    progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(progress, Progress)
    progress.begin("trace", items=2, size=2.0, done_items=0, done_size=0.0)
    progress.finished("a", 1.0)
    progress.finished("b", 1.0)
    progress.end()
    assert "Traceback" not in capsys.readouterr().err


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    Silent().begin("trace", items=2, size=2.0, done_items=0, done_size=0.0)
    Silent().finished("a", 1.0)

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (300, "5 min"), (5400, "1 h 30 min"), (7199, "2 h 0 min")],
)
def test_lengths_of_time_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
