"""A run's settings beside their defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerscope.contract import Experiment


@dataclass(frozen=True)
class SettingRow:
    """One setting: what it was, what it is by default, what it means."""

    name: str
    value: str
    default: str
    differs: bool
    description: str


def setting_rows(experiment: Experiment, settings: Mapping[str, Any]) -> list[SettingRow]:
    """Every setting of the run, those that the experiment no longer has included."""
    usual = defaults(experiment)
    return [
        _row(experiment, name, settings.get(name, usual.get(name)), usual)
        for name in [*usual, *_gone(settings, usual)]
    ]


def _gone(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    return [name for name in settings if name not in usual]


def _row(experiment: Experiment, name: str, value: Any, usual: Mapping[str, Any]) -> SettingRow:
    known = experiment.settings.model_fields.get(name)
    description = (known.description or "") if known else "no longer a setting of this experiment"
    default = written(usual[name]) if name in usual else ""
    return SettingRow(name, written(value), default, differs(name, value, usual), description)


def defaults(experiment: Experiment) -> dict[str, Any]:
    """Default of each setting in its JSON form; "(required)" where there is none."""
    fields = experiment.settings.model_fields
    known = {
        name: field.get_default(call_default_factory=True)
        for name, field in fields.items()
        if not field.is_required()
    }
    model = experiment.settings.model_construct(**known)
    dumped = model.model_dump(mode="json", include=set(known))
    return {name: dumped.get(name, "(required)") for name in fields}


def differs(name: str, value: Any, usual: Mapping[str, Any]) -> bool:
    """Whether a value is not the default."""
    return name not in usual or written(value) != written(usual[name])


def written(value: Any) -> str:
    """A setting as `--set name=...` takes it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
