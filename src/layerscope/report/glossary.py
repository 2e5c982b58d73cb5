"""The words of the field that pages use, each explained once; a page links the first use of each to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

from markupsafe import Markup, escape


def _read() -> dict[str, str]:
    lines = (
        files("layerscope.report").joinpath("templates/glossary.txt").read_text(encoding="utf-8").splitlines()
    )
    return dict(line.split(": ", 1) for line in lines)


GLOSSARY = _read()
"""Terms and what they mean, in alphabetical order (docs/glossary.md holds the same)."""

_TERM = re.compile(
    "|".join(rf"\b{term}(?=s?\b)" for term in sorted(GLOSSARY, key=len, reverse=True)), re.IGNORECASE
)


def term_anchor(term: str) -> str:
    """The id of a term on the page."""
    return "term-" + term.replace(" ", "-")


def linked_terms() -> Callable[[str], Markup]:
    """A filter for one page: the first use of each term in the texts that it is given links to the glossary."""
    seen: set[str] = set()

    def explained(text: str) -> Markup:
        pieces, end = [], 0
        for match in _TERM.finditer(text):
            term = match.group().lower()
            if term not in seen:
                seen.add(term)
                link = Markup('<a class="term" href="#{}" title="{}">{}</a>').format(
                    term_anchor(term), GLOSSARY[term], match.group()
                )
                pieces += [escape(text[end : match.start()]), link]
                end = match.end()
        return Markup("").join([*pieces, escape(text[end:])])

    return explained
