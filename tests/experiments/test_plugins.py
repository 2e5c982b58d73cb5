"""Experiments of other packages: found by their entry points, and refused by name where something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from installed import QUESTION, WHOLE, by_hand, forget
from layerscope import LayerscopeError, experiments
from quick import Command

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution beside Layerscope: its name, its entry points, its modules."""

    def put(distribution: str, points: dict[str, str], modules: dict[str, str] | None = None) -> None:
        monkeypatch.syspath_prepend(by_hand(tmp_path / distribution, distribution, points, modules or {}))

    yield put
    forget("acme", "other")


def test_an_experiment_of_another_package_stands_among_the_others(install: Install) -> None:
    install("acme-probes", {"acme_probe": "acme"}, {"acme": WHOLE})

    loaded = experiments.load("acme_probe")

    assert experiments.names() == sorted(experiments.names())
    assert "acme_probe" in experiments.names()
    assert experiments.question("acme_probe") == loaded.question == "Is this a question?"
    assert experiments.whose("acme_probe") == "acme-probes 1.0"
    assert loaded.plugin["acme-probes"].version == "1.0"
    assert not experiments.load("causal_trace").plugin


def test_a_name_of_layerscopes_own_is_refused_with_both_who_claim_it(install: Install) -> None:
    install("acme-probes", {"causal_trace": "acme"}, {"acme": WHOLE})

    for use in (experiments.load, experiments.question):
        with pytest.raises(LayerscopeError, match=r"two experiments are called causal_trace") as refused:
            use("causal_trace")
        assert refused.value.found == "one of Layerscope and one of acme-probes 1.0"
        assert "pip uninstall acme-probes" in str(refused.value)
    assert experiments.load("hidden_states").question  # the others are as they were


def test_a_name_that_two_packages_claim_is_refused(install: Install) -> None:
    install("acme-probes", {"probe": "acme"}, {"acme": WHOLE})
    install("other-probes", {"probe": "other"}, {"other": WHOLE})

    with pytest.raises(LayerscopeError, match=r"two experiments are called probe") as refused:
        experiments.load("probe")

    assert set(str(refused.value.found).split(" and ")) == {
        "one of acme-probes 1.0",
        "one of other-probes 1.0",
    }


@pytest.mark.parametrize("name", ["../elsewhere", "all", "Probe", "a-b", "x" * 41])
def test_a_name_that_cannot_be_used_is_refused(install: Install, name: str) -> None:
    install("acme-probes", {name: "acme"}, {"acme": WHOLE})

    with pytest.raises(LayerscopeError, match=r"of acme-probes 1.0 has a name that cannot be used"):
        experiments.load(name)


BROKEN = {
    "no such module": ("nowhere_at_all", "ModuleNotFoundError"),
    "no such package above": ("nowhere_at_all.inside", "ModuleNotFoundError"),
    "a mistake in Python": ("acme", "SyntaxError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_there_is_told_with_whose_it_is(install: Install, case: str) -> None:
    module, kind = BROKEN[case]
    install("acme-probes", {"probe": module}, {"acme": "this is no Python"})

    for use in (experiments.question, experiments.load):
        with pytest.raises(LayerscopeError, match=rf"probe of acme-probes 1.0 cannot be imported\n.*{kind}"):
            use("probe")
    assert "probe" in experiments.names()  # it does not vanish


def test_what_fails_while_it_is_imported_is_told_with_whose_it_is(install: Install) -> None:
    install("acme-probes", {"probe": "acme"}, {"acme": QUESTION + "import a_library_that_is_missing"})

    assert experiments.question("probe") == "Is this a question?"
    with pytest.raises(LayerscopeError, match=r"probe of acme-probes 1.0 cannot be imported") as refused:
        experiments.load("probe")

    assert "a_library_that_is_missing" in str(refused.value.found)


WRONG = {
    "no STAGES, draw": WHOLE.replace("STAGES", "STEPS").replace("= draw", ""),
    "its docstring does not begin with a question": WHOLE.replace("a question?", "an answer."),
    "TAKES pictures, which no text is": WHOLE.replace('"passages"', '"pictures"'),
    "Settings is not a class of ExperimentSettings": WHOLE + "Settings = dict\n",
    "STAGES are not Stages": WHOLE + "STAGES = (1,)\n",
    "a stage's name is not made of": WHOLE.replace('Stage("one"', 'Stage("../one"'),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_an_experiment_lacks_is_named(install: Install, what: str) -> None:
    install("acme-probes", {"probe": "acme"}, {"acme": WRONG[what]})

    with pytest.raises(LayerscopeError, match=r"probe of acme-probes 1.0 is not complete") as refused:
        experiments.load("probe")

    assert what in str(refused.value.found)


def test_a_list_shows_all_that_can_be_used_and_ends_with_what_cannot(
    install: Install, command: Command
) -> None:
    install("acme-probes", {"causal_trace": "acme", "acme_probe": "acme"}, {"acme": WHOLE})

    listed = command("list")

    assert listed.code == 2
    assert "acme_probe           Is this a question?   (acme-probes 1.0)" in listed.out
    assert "hidden_states" in listed.out
    assert "acme-probes 1.0" in listed.err


def test_a_command_is_refused_before_anything_is_loaded(
    install: Install, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-probes", {"probe": "acme"}, {"acme": QUESTION + "import a_library_that_is_missing"})
    monkeypatch.setattr("layerscope.models.load.load_model", _never)

    refused = command("run", "probe")

    assert refused.code == 2
    assert "acme-probes 1.0 cannot be imported" in refused.err
    assert "Traceback" not in refused.err


def test_a_package_that_plants_nothing_or_is_broken_is_told_by_selftest(install: Install) -> None:
    from layerscope.jobs.selftest import _of_its_own

    install("acme-probes", {"probe": "acme", "gone": "nowhere_at_all"}, {"acme": WHOLE})
    untried, broken = (next(_of_its_own(name, quick=True)) for name in ("probe", "gone"))

    assert untried.holds
    assert "plants no model" in "\n".join(untried.lines())
    assert not broken.holds
    assert "acme-probes 1.0" in "\n".join(broken.lines())
    assert list(_of_its_own("causal_trace", quick=True)) == []  # tried on the models of planted/


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("a model was loaded")
