from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.plots import NamedHeatmap, heatmap_gallery, leading, token_heatmap
from layerscope.plots.theme import COLUMN


def recovery(values: list[list[float]]) -> xr.DataArray:
    return xr.DataArray(values, dims=("token", "depth"), attrs={"long_name": "recovery", "units": "1"})


def test_numbers_stand_at_their_token_and_depth_first_token_on_top() -> None:
    figure = token_heatmap(recovery([[0.0, 0.12345], [1.0, 0.5]]), ["The", " end"], [1])
    cells, axis = figure.data[0], figure.layout.yaxis

    assert [list(row) for row in cells.z] == [[0.0, 0.123], [1.0, 0.5]]
    assert list(cells.x) == [0, 1]
    assert axis.range == (1.5, -0.5)
    assert axis.ticktext == ("The", "·end ★")
    assert figure.layout.xaxis.title.text == "depth [layers applied]"
    assert figure.layout.coloraxis.colorbar.title.text == "recovery"


def test_tokens_in_rows_or_columns_give_the_same_picture() -> None:
    values = recovery([[0.0, 0.1], [1.0, 0.5]])

    assert token_heatmap(values.T, ["a", "b"]) == token_heatmap(values, ["a", "b"])


def test_hostile_tokens_are_shown_exactly(hostile: list[tuple[str, str]]) -> None:
    figure = token_heatmap(recovery([[0.0]] * len(hostile)), [text for text, _ in hostile])

    assert list(figure.layout.yaxis.ticktext) == [shown for _, shown in hostile]


def test_recovery_runs_from_0_to_1_and_effects_are_centred_on_zero() -> None:
    values = recovery([[-0.4, 0.1]])
    as_recovery, as_effect = (
        token_heatmap(values, ["a"], scale=s).layout.coloraxis for s in ("recovery", "effect")
    )

    assert (as_recovery.cmin, as_recovery.cmax) == (0, 1)
    assert (as_effect.cmin, as_effect.cmax) == (-0.4, 0.4)


def test_cells_that_do_not_exist_are_hatched_and_counted() -> None:
    figure = token_heatmap(recovery([[np.nan, np.nan, 0.2], [0.1, np.nan, 0.3]]), ["a", "b"], caption="One.")
    cells, hatched = figure.data

    assert cells.z[0][0] is None
    assert list(zip(hatched.x, hatched.base, hatched.width, strict=True)) == [
        (0.5, -0.5, 2.0),
        (1.0, 0.5, 1.0),
    ]
    assert hatched.marker.pattern.shape == "/"
    assert figure.layout.meta["caption"] == "One. Hatched: 3 cells that do not exist."
    other = token_heatmap(recovery([[np.nan], [0.1]]), ["a", "b"], hatched="cells that nobody measured")
    assert other.layout.meta["caption"] == "Hatched: 1 cells that nobody measured."


def test_the_menu_swaps_numbers_and_tokens_and_groups_by_category() -> None:
    figure = heatmap_gallery(
        [
            NamedHeatmap("first", recovery([[0.1, 0.2]]), ["a"], [0], "facts"),
            NamedHeatmap("other", recovery([[0.3, 0.4], [0.5, np.nan]]), ["b", "%{y}"], (), "<phrases>"),
            NamedHeatmap("third", recovery([[0.6, 0.7]]), ["c"], (), "facts"),
        ]
    )
    buttons = figure.layout.updatemenus[0].buttons
    data, layout = buttons[2].args

    assert [button.label for button in buttons] == ["facts: first", "facts: third", "&lt;phrases&gt;: other"]
    assert [list(row) for row in figure.data[0].z] == [[0.1, 0.2]]
    assert data["z"][0] == [[0.3, 0.4], [0.5, None]]
    assert data["base"][1] == [0.5]
    assert layout["yaxis.ticktext"] == ["b", "%&#123;y}"]
    assert layout["yaxis.range"] == [1.5, -0.5]


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(LayerscopeError, match="nothing to draw"):
        heatmap_gallery([])
    with pytest.raises(LayerscopeError, match="2 tokens for"):
        token_heatmap(recovery([[0.1]]), ["a", "b"])


def test_a_lead_figure_keeps_one_height_whatever_its_menu_shows() -> None:
    cells = xr.DataArray(np.zeros((3, 2)), dims=("token", "depth"), coords={"depth": [0, 1]})
    long = xr.DataArray(np.zeros((9, 2)), dims=("token", "depth"), coords={"depth": [0, 1]})
    gallery = heatmap_gallery(
        [NamedHeatmap("a", cells, list("abc")), NamedHeatmap("b", long, list("abcdefghi"))]
    )

    (figure,) = leading({"prompts": gallery}, ["prompts"]).values()

    assert {button.args[1]["height"] for button in figure.layout.updatemenus[0].buttons} == {
        figure.layout.height
    }


def test_a_map_of_many_layers_still_stands_in_a_column_and_long_tokens_need_more_room() -> None:
    cells = xr.DataArray(np.zeros((2, 33)), dims=("token", "depth"), coords={"depth": range(33)})

    assert token_heatmap(cells, ["<|endoftext|>", "b"]).layout.meta["min_width"] <= COLUMN
    assert token_heatmap(cells, ["x" * 30, "b"]).layout.meta["min_width"] > COLUMN


def test_colours_by_the_root_show_small_effects_and_tell_the_numbers_themselves() -> None:
    effects = xr.DataArray([[0.64, -0.01], [np.nan, 0.0]], dims=("token", "layer"), coords={"layer": [0, 1]})
    figure = token_heatmap(effects, ["a", "b"], scale="effect", root=True)
    cells, axis = figure.data[0], figure.layout.coloraxis

    np.testing.assert_allclose(np.array(cells.z, dtype=float), [[0.8, -0.1], [np.nan, 0.0]])
    assert [list(row) for row in cells.customdata] == [[0.64, -0.01], [None, 0.0]]
    assert "%{customdata:.3g}" in cells.hovertemplate
    assert (axis.cmin, axis.cmax) == pytest.approx((-0.8, 0.8))
    np.testing.assert_allclose(
        axis.colorbar.tickvals, np.sqrt([0.1, 0.01, 0.1, 0.01, 0.0]) * [-1, -1, 1, 1, 0]
    )
    assert list(axis.colorbar.ticktext) == ["−0.1", "−0.01", "0.1", "0.01", "0"]
