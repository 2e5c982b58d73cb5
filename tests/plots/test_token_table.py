from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from layerscope.errors import LayerscopeError
from layerscope.plots.token_table import TokenTable, token_tables


def cells(
    tokens: list[str], tops: list[list[list[str]]], ranks: list[list[int]], start: int = 0
) -> xr.Dataset:
    """Tables by position, depth and place: of two tokens the first has a probability of .75."""
    return xr.Dataset(
        {
            "top_text": (("token", "depth", "place"), np.array(tops)),
            "probability": (
                ("token", "depth", "place"),
                np.full(np.shape(tops), [0.75, 0.125], dtype=np.float32),
            ),
            "target_text": ("token", [top[-1][0] for top in tops]),
            "rank": (("token", "depth"), ranks),
            "token_text": ("token", tokens),
            "position": ("token", np.arange(len(tokens)) + start),
        },
        coords={"depth": range(len(tops[0]))},
    )


TWO = cells(
    [" the", " <b>"],
    [[[" cat", "a"], [" dog", " cat"]], [["%{y}", "b"], [" a very long token", "c"]]],
    [[2, 1], [1500, 1]],
    start=5,
)


def test_depth_rises_from_the_bottom_and_cells_hold_the_top_token() -> None:
    figure = token_tables([TokenTable("one", TWO)], title="T", caption="C.")
    (trace,) = figure.data

    assert list(trace.y) == [0, 1]
    assert figure.layout.yaxis.range == (-0.5, 1.5)
    assert [list(row) for row in trace.z] == [[0.75, 0.75], [0.75, 0.75]]
    assert [list(row) for row in trace.text] == [["·cat", "%&#123;y}"], ["<b>·dog</b>", "<b>·a·very·…</b>"]]
    assert list(figure.layout.xaxis.ticktext) == ["·the", "·&lt;b&gt;"]
    assert figure.layout.meta["scale"] == "recovery"
    assert not figure.layout.updatemenus


def test_hover_tells_every_kept_token_and_the_rank_of_the_one_that_is_followed() -> None:
    (trace,) = token_tables([TokenTable("one", TWO)]).data

    assert trace.customdata[0][1][0].split("<br>") == [
        "depth 0, position 6: ·&lt;b&gt;",
        "0.750  %&#123;y}",
        "0.125  b",
        "rank of ·a·very·long·token: 1,500",
    ]
    assert trace.hovertemplate == "%{customdata[0]}<extra></extra>"


def test_hostile_tokens_are_shown_exactly(hostile: list[tuple[str, str]]) -> None:
    texts = [text for text, _ in hostile]
    (trace,) = token_tables(
        [TokenTable("x", cells(texts, [[[text, text]] for text in texts], [[1]] * len(texts)))]
    ).data
    shown = [cell[0] for cell in trace.customdata[0]]

    for (_, expected), one in zip(hostile, shown, strict=True):
        first, *lines = one.split("<br>")
        assert first.endswith(f": {expected}")
        assert [line.partition("  ")[2] for line in lines[:2]] == [expected] * 2
        assert lines[2] == f"rank of {expected}: 1"


def test_the_menu_swaps_tables_of_other_lengths() -> None:
    longer = cells([" a"] * 3, [[[" x", "y"]] * 2] * 3, [[3, 1]] * 3)
    figure = token_tables([TokenTable("The cat → ·x", TWO), TokenTable("<i>A", longer)])
    first, second = figure.layout.updatemenus[0].buttons
    data, layout = second.args

    assert [first.label, second.label] == ["The cat → ·x", "&lt;i&gt;A"]
    assert len(data["x"][0]) == 3
    assert data["text"][0][1] == ["<b>·x</b>"] * 3
    assert layout["xaxis.range"] == [-0.5, 2.5]
    assert layout["xaxis.ticktext"] == ["·a"] * 3
    assert layout["height"] == figure.layout.height


@pytest.mark.parametrize(("depths", "columns"), [(5, 4), (49, 120)])
def test_deep_models_and_long_prompts_stay_readable(depths: int, columns: int) -> None:
    many = cells([" a"] * columns, [[[" x", "y"]] * depths] * columns, [[1] * depths] * columns)
    figure = token_tables([TokenTable("long", many)])

    inside = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    assert inside / depths >= 16
    assert (figure.layout.meta["min_width"] - 90) / columns >= 60


@pytest.mark.parametrize(("depths", "shown"), [(5, [0, 1, 2, 3, 4]), (31, list(range(0, 31, 3)))])
def test_in_a_column_the_last_tokens_stand_at_few_depths_up_to_the_output(
    depths: int, shown: list[int]
) -> None:
    tops = [[[f"{column}-{depth}", "y"] for depth in range(depths)] for column in range(6)]
    one = cells([f" t{column}" for column in range(6)], tops, [[1] * depths] * 6)
    figure = token_tables([TokenTable("x", one), TokenTable("y", one)], column=True)
    (trace,), layout = figure.data, figure.layout

    assert [list(row) for row in trace.text] == [
        [f"<b>{column}-{depth}</b>" for column in range(2, 6)] for depth in shown
    ]
    assert list(layout.yaxis.ticktext) == [str(depth) for depth in shown]
    assert list(layout.yaxis.tickvals) == list(range(len(shown)))
    assert trace.customdata[-1][0][0].startswith(f"depth {depths - 1}, position 2: ")
    assert layout.coloraxis.showscale is False
    assert layout.meta["min_width"] <= 340
    assert layout.updatemenus[0].buttons[1].args[1]["height"] == layout.height


def test_nothing_to_draw_is_named() -> None:
    with pytest.raises(LayerscopeError, match="nothing to draw"):
        token_tables([])
