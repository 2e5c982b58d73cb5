"""What the posts claimed, one file for each post: every module here that has a `POST`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from layerscope.atlas.verdicts import Post
from layerscope.errors import LayerscopeError


@cache
def posts() -> tuple[Post, ...]:
    """All posts, by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return tuple(sorted((m.POST for m in modules if hasattr(m, "POST")), key=lambda post: post.name))


def post_named(name: str) -> Post:
    """The post of a name, or of its unique beginning.

    Raises:
        LayerscopeError: there is none, or there are several.
    """
    known = [post.name for post in posts()]
    found = [post for post in posts() if post.name == name] or [p for p in posts() if p.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    raise LayerscopeError(
        "no such post" if not found else "more than one post begins so",
        found=repr(name),
        expected=", ".join(known),
        hint=f"--post {known[0]}",
    )
