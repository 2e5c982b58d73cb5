"""One folder, one question. Folders here, and entry points of other packages, are the list: what is added there is an
experiment everywhere."""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from layerscope.errors import LayerscopeError
from layerscope.experiments._found import Found, found, only, refuse_bad_name

if TYPE_CHECKING:
    import xarray as xr

    from layerscope.contract import Claim, Experiment, ExperimentSettings


_HOLDS = ("TAKES", "Settings", "STAGES", "conclude", "claims", "over_depth", "draw")
_STAGE = re.compile(r"\w[\w ]*", re.ASCII)  # parts lie in folders of these names
_KINDS = {"prompts", "passages", "treebank", "words"}


def names() -> list[str]:
    """Names of folders and entry points are the names used on the command line, in reports and in the app.

    One that two packages claim, or that cannot be imported, is among them: it is refused where it is used.
    """
    return list(found())


def question(name: str) -> str:
    """The first line of an experiment's docstring, without importing it.

    Raises:
        LayerscopeError: as `load`, as far as it can be told without importing it.
    """
    return _one(name).question


def whose(name: str) -> str:
    """Who brings an experiment, in words: "Layerscope", or another package with its version."""
    return _one(name).whose


def load(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        LayerscopeError: there is none (the nearest name is given); several packages bring one; or what another
            package brings cannot be imported, or lacks something that an experiment holds.
    """
    from layerscope.contract import Experiment
    from layerscope.results.record import PlugIn

    one = _one(name)
    module = one.imported()
    _refuse_incomplete(one, module)
    doc = module.__doc__ or ""
    return Experiment(
        name=name,
        question=doc.strip().partition("\n")[0],
        takes=frozenset(module.TAKES),
        needs=frozenset(getattr(module, "NEEDS", module.TAKES)),
        settings=module.Settings,
        stages=tuple(module.STAGES),
        conclude=module.conclude,
        claims=_listed(module.claims),
        over_depth=_named(module.over_depth, name),
        draw=module.draw,
        doc=doc,
        headlines=tuple(getattr(module, "HEADLINES", ())),
        place=int(getattr(module, "PLACE", Experiment.place)),
        plugin={one.distribution: PlugIn(version=one.version, code=one.code())} if one.distribution else {},
        **{
            name: getattr(module, name)
            for name in ("read", "sheet", "judged", "tell")
            if hasattr(module, name)
        },
    )


def planted_by(name: str) -> tuple[str, tuple[Any, ...]]:
    """Planted models that an experiment brings itself: where they are, and its trials; nothing but `selftest` asks.

    They are the `TRIALS` of the role `planted`.

    Raises:
        LayerscopeError: as `load`.
    """
    one = _one(name)
    if not one.has("planted"):
        return "", ()
    planted = one.imported("planted")
    return planted.__name__, tuple(planted.TRIALS)


def refuse_name(name: str) -> None:
    """Refuse a name for a new experiment: one that cannot be used, or that another one has.

    Raises:
        LayerscopeError: with who has it.
    """
    refuse_bad_name(name)
    if name in found():
        raise LayerscopeError(
            "there is an experiment of this name already",
            found=f"{name}, of {' and of '.join(one.whose for one in found()[name])}",
            expected="a name of its own",
            hint="layerscope list   (shows the names that are taken)",
        )


def _one(name: str) -> Found:
    claimed = found().get(name)
    if claimed is None:
        raise _unknown(name)
    return only(claimed)


def _refuse_incomplete(one: Found, module: ModuleType) -> None:
    wrong = list(_wrong_with(module))
    if wrong:
        raise LayerscopeError(
            f"the experiment {one.name} of {one.whose} is not complete",
            found="; ".join(wrong),
            expected="what docs/adding_an_experiment.md lists",
            hint=f"see {module.__file__}",
        )


def _wrong_with(module: ModuleType) -> Iterator[str]:
    from layerscope.contract import ExperimentSettings, Stage

    lacking = [name for name in _HOLDS if not hasattr(module, name)]
    if lacking:
        yield f"no {', '.join(lacking)}"
        return
    if not (module.__doc__ or "").strip().partition("\n")[0].endswith("?"):
        yield "its docstring does not begin with a question"
    if unknown := set(module.TAKES) - _KINDS:
        yield f"TAKES {', '.join(map(str, sorted(unknown)))}, which no text is"
    if not (isinstance(module.Settings, type) and issubclass(module.Settings, ExperimentSettings)):
        yield "Settings is not a class of ExperimentSettings"
    stages = list(module.STAGES)
    if not all(isinstance(stage, Stage) for stage in stages):
        yield "STAGES are not Stages"
    elif any(not _STAGE.fullmatch(stage.name) for stage in stages):
        yield "a stage's name is not made of letters, digits, blanks and _"
    elif len({stage.name for stage in stages}) < len(stages):
        yield "two stages of one name"


def _listed(claims: Callable[[xr.Dataset], Any]) -> Callable[[xr.Dataset], list[Claim]]:
    """Claims may be yielded one by one."""
    return lambda result: list(claims(result))


def _named(
    over_depth: Callable[[xr.Dataset], Any], name: str
) -> Callable[[xr.Dataset], dict[str, xr.Dataset]]:
    """Measures by name: a single one without a name is called like its experiment."""

    def measures(result: xr.Dataset) -> dict[str, xr.Dataset]:
        found = over_depth(result)
        return found if isinstance(found, dict) else {name: found}

    return measures


def settings_of(experiment: Experiment, values: Mapping[str, Any]) -> ExperimentSettings:
    """Settings with these values in place of their defaults.

    Raises:
        LayerscopeError: an unknown setting (with the nearest name), or a value that does not fit.
    """
    from pydantic import ValidationError

    known = experiment.settings.model_fields
    for name in values:
        if name not in known:
            raise LayerscopeError(
                f"{experiment.name} has no such setting",
                found=name,
                expected=_nearest(name, list(known)),
                hint=f"layerscope list experiments   (its settings: {', '.join(known)})",
            )
        if not _is_plain(values[name]):
            raise LayerscopeError(
                f"the setting {name} of {experiment.name} is of a wrong type",
                found=f"{type(values[name]).__name__}: {values[name]!r}",
                expected="a number, a word, true or false, or a list or mapping of these",
                hint=f"--set {name}={_example(experiment, name)}",
            )
    try:
        return experiment.settings(**values)
    except ValidationError as error:
        raise _unfitting(experiment, error.errors()[0]) from error


def _is_plain(value: Any) -> bool:
    """Whether a value is one that JSON could hold; numpy's numbers among them."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | numbers.Real)


def _unfitting(experiment: Experiment, first: Any) -> LayerscopeError:
    """What pydantic found first, of one setting or of several together."""
    said = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return LayerscopeError(
            f"settings of {experiment.name} do not fit together",
            found=", ".join(f"{key}={value}" for key, value in dict(first["input"]).items()),
            expected=said,
            hint="change one of them with --set",
        )
    name = str(first["loc"][0])  # of a list, whichever entry does not fit
    field = experiment.settings.model_fields.get(name)
    return LayerscopeError(
        f"the setting {name} of {experiment.name} does not fit",
        found=_shown(first["input"]),
        expected=f"{said}   ({field.description if field else ''})",
        hint=f"--set {name}={_example(experiment, name)}",
    )


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"


def _example(experiment: Experiment, name: str) -> Any:
    field = experiment.settings.model_fields.get(name)
    return "..." if field is None or field.is_required() else field.default


def _nearest(name: str, known: list[str]) -> str:
    return (difflib.get_close_matches(name, known, n=1, cutoff=0.4) or [" or ".join(known)])[0]


def _unknown(name: str) -> LayerscopeError:
    return LayerscopeError(
        "there is no such experiment",
        found=name,
        expected=_nearest(name, names()),
        hint="layerscope list   (or make it: layerscope new-experiment NAME)",
    )
