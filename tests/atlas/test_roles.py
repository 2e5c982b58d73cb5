"""A head has a role where it was planted, at whichever layer; where nothing was planted none has it."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import layerscope as ls
from layerscope.atlas.roles import ROLES, HeadWithRole, heads_with_roles, said_of_layer
from layerscope.planted import asks_subject
from layerscope.planted.looks_back import WORDS, looks_back

TEXTS = [" ".join(np.random.default_rng(seed).choice(WORDS, size=16)) for seed in range(6)]


def read(model: Any) -> xr.Dataset:
    """Attention of a model, with random text of eight tokens read twice."""
    asked = {"repeated_tokens": 8, "mean_positions": 4, "resamples": 100, "progress": False}
    return ls.run("attention_patterns", model, TEXTS, **asked)


def roles_of(*results: xr.Dataset) -> set[tuple[str, int, int]]:
    return {
        (one.role.name, one.layer, one.head)
        for one in heads_with_roles({str(one.attrs["experiment"]): one for one in results})
    }


@pytest.mark.parametrize(
    ("back", "role"), [(1, "previous-token head"), (7, "induction head"), (8, "duplicate-token head")]
)
def test_a_head_that_looks_back_has_the_role_of_its_distance(back: int, role: str) -> None:
    assert (role, 1, 1) in roles_of(read(looks_back(by=back)))
    assert (role, 2, 0) in roles_of(read(looks_back(by=back, layer=2, head=0))), "planted elsewhere"
    assert not {one for one in roles_of(read(looks_back(by=back, strength=0.0))) if one[0] == role}


def test_a_subject_reader_gives_the_subject_more_than_uniform_attention_does() -> None:
    def asked(**planted: Any) -> xr.Dataset:
        model = asks_subject.asks_subject(**planted)
        return ls.run("final_token_attention", model, **asks_subject.prompts(), progress=False)

    assert roles_of(asked()) == {("subject reader", asks_subject.PLANTED_LAYER, 1)}
    assert roles_of(asked(layer=0, head=0)) == {("subject reader", 0, 0)}
    assert roles_of(asked(strength=0.0)) == set()


def test_the_score_and_its_ends_are_said() -> None:
    heads = heads_with_roles({"attention_patterns": read(looks_back(by=1))})
    head = next(one for one in heads if one.role.name == "previous-token head")

    assert head.said().startswith("L1H1 is a previous-token head: ")
    assert "of its attention on the previous token (95% CI " in head.said()
    assert head.low > 0.3
    assert head.high <= 1


def test_heads_of_one_role_in_a_layer_share_a_sentence() -> None:
    induction = ROLES[1]
    heads = [
        HeadWithRole(induction, 1, head, value, value - 0.1, value + 0.1)
        for head, value in ((2, 0.8), (0, 0.6))
    ]

    assert said_of_layer(heads, 1) == [
        "L1H2 is the strongest of 2 induction heads (then L1H0): 80% of its attention on what followed an earlier copy "
        "of the token (95% CI 70% to 90%)."
    ]
    assert said_of_layer(heads[:1], 1)[0].startswith("L1H2 is an induction head: 80%")
    assert said_of_layer(heads, 0) == []


def test_of_many_heads_the_first_are_named_and_the_rest_counted() -> None:
    induction = next(role for role in ROLES if role.name == "induction head")
    heads = [HeadWithRole(induction, 2, head, 0.9 - head / 100, 0.7, 0.95) for head in range(9)]

    (said,) = said_of_layer(heads, 2)

    assert "of 9 induction heads (then L2H1, L2H2, L2H3, L2H4, L2H5 and 3 more)" in said
