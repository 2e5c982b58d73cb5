"""The page: templates filled with plain values, everything that is not ours escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from layerscope.atlas.reproduced import SavedClaim
from layerscope.plots.numbers import number as number_text
from layerscope.plots.numbers import p_text, with_interval
from layerscope.plots.theme import DARK, LIGHT
from layerscope.report.figures import PageFigure, looks, packed
from layerscope.report.glossary import GLOSSARY, linked_terms, term_anchor
from layerscope.report.models import ModelOnPage
from layerscope.results.citation import bibtex
from layerscope.results.escaping import visible


def render(
    models: Sequence[ModelOnPage], *, title: str | None = None, posts: Sequence[SavedClaim] = ()
) -> str:
    """The whole HTML file of runs as text.

    Args:
        models: each with its runs.
        title: of the page; by default it says what each layer of the models does.
        posts: what the posts claimed, judged by runs in the same folder.
    """
    several = len(models) > 1
    names = ", ".join(model.name for model in models)
    return filled(
        "report.html.j2",
        title=title or (f"What each layer does: {names}" if several else f"What each layer of {names} does"),
        models=models,
        several=several,
        sections=[one for model in models for one in model.runs],
        posts=posts,
    )


def filled(template: str, **values: Any) -> str:
    """A template with the frame of every page of ours: style, scripts by their hash, glossary."""
    environment = _environment()
    (plotly, library), script = _library(), _script(_source(environment, "page.js"))
    return environment.get_template(template).render(
        **values,
        glossary=GLOSSARY,
        citation=bibtex(),
        style=Markup(_source(environment, "page.css")),
        plotly=library,
        script=script,
        policy=_policy([plotly, script]),
        looks=Markup(looks()),
        light=LIGHT,
        dark=DARK,
        written=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
    )


@cache
def _library() -> tuple[str, Markup]:
    """plotly.js, and as the page carries it: nothing in it needs a stand-in."""
    code = get_plotlyjs()
    return code, Markup(packed(code))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("layerscope.report"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "measured": measured,
        "p": _p,
        "json": _json,
        "packed": lambda markup: Markup(packed(str(markup))),
        "explained": linked_terms(),
        "term_anchor": term_anchor,
        "at": lambda values, place: values[place],
    }
    return environment


def _shown(value: Any) -> Any:
    """Every text on the page with visible stand-ins for what a reader could not see."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(visible(line, blanks=False) for line in value.split("\n"))
    return value


def measured(claim: Any) -> str:
    """The number of a claim with its interval; empty where it rests on none."""
    if claim.value is None:
        return ""
    if claim.low is None or claim.high is None:
        return number_text(claim.value)
    return with_interval(claim.value, claim.low, claim.high)


def _p(value: float | None) -> str:
    return "" if value is None else p_text(value).removeprefix("p ").removeprefix("= ")


def _json(figure: PageFigure) -> Markup:
    return Markup(figure.json)


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _script(source: str) -> Markup:
    """Source that cannot end its own script element."""
    return Markup(source.replace("</script", "<\\/script"))


def _policy(scripts: Sequence[str]) -> str:
    """What the browser may do with this page: run our scripts, by their hash, and fetch nothing."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"
