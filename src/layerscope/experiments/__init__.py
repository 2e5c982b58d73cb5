"""One folder, one question. The folders are the list: one added here is an experiment everywhere."""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.errors import LayerscopeError

if TYPE_CHECKING:
    import xarray as xr

    from layerscope.contract import Claim, Experiment, ExperimentSettings


def names() -> list[str]:
    """Names of folders are the names used on the command line, in reports and in the app."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def question(name: str) -> str:
    """The first line of an experiment's docstring, without importing it."""
    for file in (
        Path(folder) / place for folder in __path__ for place in (f"{name}/__init__.py", f"{name}.py")
    ):
        if file.is_file():
            return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    raise _unknown(name)


def load(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        LayerscopeError: there is none; the nearest name is given.
        AttributeError: the folder lacks something that an experiment holds.
    """
    from layerscope.contract import Experiment

    if name not in names():
        raise _unknown(name)
    module = importlib.import_module(f"{__name__}.{name}")
    doc = module.__doc__ or ""
    return Experiment(
        name=name,
        question=doc.strip().partition("\n")[0],
        takes=frozenset(module.TAKES),
        needs=frozenset(getattr(module, "NEEDS", module.TAKES)),
        settings=module.Settings,
        stages=module.STAGES,
        conclude=module.conclude,
        claims=_listed(module.claims),
        over_depth=_named(module.over_depth, name),
        draw=module.draw,
        doc=doc,
        headlines=tuple(getattr(module, "HEADLINES", ())),
        **{name: getattr(module, name) for name in ("read", "sheet", "judged") if hasattr(module, name)},
    )


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
    try:
        return experiment.settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"  # of a list, whichever entry does not fit
        described = known[name].description if name in known else ""
        raise LayerscopeError(
            f"the setting {name} of {experiment.name} does not fit",
            found=repr(first["input"]),
            expected=f"{first['msg']}   ({described})",
            hint=f"--set {name}={_example(experiment, name)}",
        ) from error


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
        hint=f"layerscope list   (or add experiments/{name}/)",
    )
