from __future__ import annotations

import json
import shlex

import pytest
import xarray as xr
from plotly.graph_objects import Figure

from layerscope import experiments
from layerscope.contract import Claim
from layerscope.plots import NamedHeatmap, heatmap_gallery
from layerscope.report.exclusions import exclusions
from layerscope.report.figures import page_figure, safe_json
from layerscope.report.prose import paragraphs
from layerscope.report.provenance import duration, provenance
from layerscope.report.reproduce import recipe
from layerscope.report.settings import setting_rows
from report.made_runs import HOSTILE, MakeRun


def test_docstrings_become_paragraphs() -> None:
    first, items, caution, verbatim, source = paragraphs(
        "A question?\n\nSome `code`\nhere.\n\n- one\n  more\n- two\n\nBeware: it bites.\n\n    a = 1\n\nSource: X.\n"
    )

    assert first.lines == (((False, "Some "), (True, "code"), (False, " here.")),)
    assert (items.kind, [line[0][1] for line in items.lines]) == ("list", ["one more", "two"])
    assert (caution.kind, caution.lines[0][0][1]) == ("beware", "it bites.")
    assert (verbatim.kind, verbatim.lines[0][0][1]) == ("verbatim", "a = 1")
    assert source.kind == "source"


def test_settings_tell_what_differs_from_the_default() -> None:
    rows = setting_rows(
        experiments.load("trial_trace"), {"seed": 0, "noise": "3sd", "window": [1], "old": True}
    )

    assert {row.name: row.differs for row in rows} == {
        "seed": False, "noise": True, "samples": False, "window": False, "old": True,
    }  # fmt: skip
    assert next(row for row in rows if row.name == "noise").default == "0.5"
    assert next(row for row in rows if row.name == "samples").value == "10"
    assert rows[-1].description == "no longer a setting of this experiment"


def test_the_commands_ask_the_same_again(make_run: MakeRun) -> None:
    settings = {"seed": 3, "noise": "3 sd", "samples": 10, "window": [1, 2]}
    run = make_run(settings=settings, model="my models/a'b", dtype="bfloat16")
    claim = Claim(text="x", select={"variable": "mean_transition", "category": "facts"})

    made = recipe(run, run.record, experiments.load("trial_trace"), "runs/first run", claim)

    assert made.replay == "layerscope replay 'runs/first run'"
    assert shlex.split(made.command) == [
        "layerscope", "run", "trial_trace", "--model", "my models/a'b", "--prompts", "english",
        "--seed", "3", "--set", "noise=3 sd", "--set", "window=[1, 2]", "--dtype", "bfloat16",
    ]  # fmt: skip
    assert made.python.splitlines() == [
        "import layerscope as ls",
        """result = ls.run('trial_trace', ls.load_model("my models/a'b", dtype='bfloat16'), """
        """ls.load_prompts('english'), seed=3, noise='3 sd', window=[1, 2])""",
        "result['mean_transition'].sel({'category': 'facts'})",
    ]


def test_a_model_that_was_handed_over_cannot_be_asked_by_name(make_run: MakeRun) -> None:
    run = make_run(loadable=False)

    made = recipe(run, run.record, experiments.load("trial_trace"), "runs/first")

    assert made.replay == made.command == ""
    assert "ls.run('trial_trace', model, ls.load_prompts('english')" in made.python


def test_what_was_left_out_is_counted_and_named(make_run: MakeRun) -> None:
    (kind,) = exclusions(make_run().result())

    assert (kind.items, kind.used, kind.total) == ("prompts", 28, 30)
    assert kind.left_out[0] == ("prompt 2", "the answer is not top-1")
    assert "<U+202E> <U+0007> <U+D800>" in kind.left_out[1][1]


def test_provenance_names_what_the_load_check_refused(make_run: MakeRun) -> None:
    groups = {group.heading: group.rows for group in provenance(make_run().record)}

    assert ("additions", "post-norm residuals", "refused") in groups["Load check"]
    assert ("n parameters", "12,345,678", "") in groups["Model"]
    assert ("largest memory", "1.50 GiB", "") in groups["Time and memory"]
    assert ("stage trace", "9 items, 1 min 15 s", "") in groups["Time and memory"]
    assert "revision" not in dict(row[:2] for row in groups["Model"])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.84, "0.84 s"), (42.3, "42 s"), (125, "2 min 5 s"), (11530, "3 h 12 min")]
)
def test_durations_are_said_as_a_person_does(seconds: float, text: str) -> None:
    assert duration(float(seconds)) == text


def test_json_cannot_end_its_script_element() -> None:
    text = safe_json({"a": "</script><!-- \ud800"})

    assert "<" not in text
    assert text.isascii()
    assert json.loads(text) == {"a": "</script><!-- \ud800"}


def test_the_page_takes_over_title_caption_and_menu() -> None:
    values = xr.DataArray([[0.5, 0.25]], dims=("token", "depth"))
    maps = [NamedHeatmap(name, values, ["a"], (), "<c>") for name in ("one", HOSTILE)]
    bare = heatmap_gallery(maps[:1])

    made = page_figure("f", "heading", heatmap_gallery(maps, title="T", caption="C"))
    content = json.loads(made.json)

    assert (made.caption, made.height) == ("C", bare.layout.height)
    assert {"title", "template", "updatemenus"}.isdisjoint(content["layout"])
    assert content["data"][0]["z"] == [[0.5, 0.25]]
    assert [entry["group"] for entry in content["menu"]] == ["<c>", "<c>"]
    assert content["menu"][1]["label"].startswith("<c>: <script>alert(1)</script><b>")
    assert content["menu"][1]["args"][1]["height"] == bare.layout.height


def test_figures_of_other_hands_are_shown_as_they_are() -> None:
    figure = Figure().add_scatter(y=[1, 2]).update_layout(title="own", meta=["other"])

    made = page_figure("f", "heading", figure)

    assert json.loads(made.json)["layout"]["title"] == {"text": "own"}
    assert (made.caption, made.min_width) == ("", 0)
