import pytest

from layerscope.errors import LayerscopeError
from layerscope.models.sites import parse_site


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resid_pre 5", "resid_pre 5"),
        ("resid_pre[5]", "resid_pre 5"),
        ("mlp_out -1", "mlp_out 11"),
        ("blocks.3.hook_resid_post", "resid_post 3"),
        ("blocks.3.attn.hook_z", "head_out 3"),
        ("blocks.0.attn.hook_pattern", "pattern 0"),
        ("blocks.7.hook_out", "resid_post 7"),
    ],
)
def test_a_site_is_read_in_our_words_and_in_transformerlens_words(text: str, expected: str) -> None:
    assert str(parse_site(text, 12)) == expected


@pytest.mark.parametrize("text", ["resid_pre 12", "resid_pre -13", "blocks.12.hook_in"])
def test_a_block_beyond_the_model_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(LayerscopeError, match="0 to 11"):
        parse_site(text, 12)


def test_a_misspelt_site_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(LayerscopeError, match="resid_pre 5"):
        parse_site("residpre 5", 12)
