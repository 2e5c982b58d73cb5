"""What one run gives the atlas: its measures over layers and its heads with a role, twins beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import xarray as xr

from layerscope.atlas.measures import columns_of
from layerscope.atlas.roles import HeadWithRole, heads_with_roles
from layerscope.results.schema import said_of_itself


@dataclass(frozen=True, eq=False)
class Part:
    """One experiment's share in the atlas of a model.

    Attributes:
        experiment: its name.
        columns: measures over layers, by name.
        heads: heads with a role, by its scores.
        result: what it rests on; None in a part that was sent from another process, which needs it no more.
        twins: the same of untrained twins, by seed.
    """

    experiment: str
    columns: Mapping[str, xr.Dataset]
    heads: tuple[HeadWithRole, ...]
    result: xr.Dataset | None = None
    twins: Mapping[int, xr.Dataset] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The group of questions that it belongs to: that of its first measure; empty without one."""
        return next((str(one.group.values[0]) for one in self.columns.values()), "")

    @property
    def alone(self) -> Part:
        """The same without the results."""
        return replace(self, result=None, twins={})


def part_of(result: xr.Dataset, twins: Mapping[int, xr.Dataset] | None = None) -> Part:
    """What a result gives the atlas.

    Raises:
        LayerscopeError: a Dataset that no experiment made.
    """
    name = said_of_itself(result, "experiment")
    twins = twins or {}
    return Part(name, columns_of(name, result, twins), heads_with_roles({name: result}), result, twins)
