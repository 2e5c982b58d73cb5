"""How Layerscope is cited, and the sources of the methods of its experiments."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Mapping
from importlib import metadata

from layerscope.results.latex import escaped_for_latex

_ENTRY = """@software{{layerscope,
  title   = {{Layerscope: what does each layer of a decoder-only language model do?}},
  author  = {{{{The Layerscope developers}}}},
  version = {{{version}}},
  year    = {{{year}}},
}}"""
_YEAR = 2026
_SOURCE = re.compile(r'([\w-]+(?: et al\.| & [\w-]+)?) (\d{4}), "([^"]+)"')


def bibtex() -> str:
    """A BibTeX entry of the version that is installed."""
    return _ENTRY.format(version=metadata.version("layerscope"), year=_YEAR)


def sources_of(docs: Mapping[str, str]) -> str:
    """What experiments name as their sources: each as a comment, and as an entry where it has a title.

    Args:
        docs: docstrings, by experiment; a source is "Author Year, \"Title\"" in the paragraph that begins with Source:.

    Returns:
        BibTeX; one entry for each author and year, with the longest title that any experiment gives.
    """
    said = {name: _source(doc) for name, doc in docs.items()}
    comments = [f"% {name}: {text or 'no source'}" for name, text in said.items()]
    titles: dict[tuple[str, str], str] = {}
    for text in said.values():
        for author, year, title in _SOURCE.findall(text):
            titles[author, year] = max(titles.get((author, year), ""), title, key=len)
    return "\n".join([*comments, *(_misc(*named, title) for named, title in sorted(titles.items()))])


def _source(doc: str) -> str:
    """The paragraph on sources, in one line."""
    found = re.search(r"^Source:(.*?)(\n\s*\n|\Z)", inspect.cleandoc(doc), re.DOTALL | re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _misc(author: str, year: str, title: str) -> str:
    first, word = author.split()[0], re.findall(r"\w+", title)[0]
    letters = unicodedata.normalize("NFKD", f"{first}{year}{word}".lower()).encode("ascii", "ignore").decode()
    authors = author.replace(" et al.", " and others").replace(" & ", " and ")
    return (
        f"@misc{{{re.sub('[^a-z0-9]', '', letters)},\n  author = {{{escaped_for_latex(authors)}}},\n"
        f"  year   = {{{year}}},\n  title  = {{{{{escaped_for_latex(title)}}}}},\n}}"
    )
