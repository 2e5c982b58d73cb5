"""What a claim must come to on an untrained twin is declared where it is made, also where no small run gets to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import layerscope.experiments

_MAKERS = {"claim", "Claim", "rest_of", "claims_of_pairs"}
_ROOMS = Path(layerscope.experiments.__file__).parent


def made_in(source: str) -> Iterator[tuple[int, bool]]:
    """Lines that make a claim, and whether they declare; a finding that compares nothing declares by itself."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {keyword.arg for keyword in call.keywords}
        if name in _MAKERS and (name != "claim" or "nothing" in given):
            yield call.lineno, "untrained" in given


def test_every_place_that_makes_a_claim_declares() -> None:
    places = {
        f"{path.relative_to(_ROOMS)}:{line}": declared
        for path in _ROOMS.rglob("*.py")
        for line, declared in made_in(path.read_text(encoding="utf-8"))
    }

    assert len(places) >= 80
    assert [place for place, declared in places.items() if not declared] == []
    assert list(made_in('gap.claim("x", nothing="y")\ngap.claim("x")\nClaim(text="x")')) == [
        (1, False),
        (3, False),
    ]
