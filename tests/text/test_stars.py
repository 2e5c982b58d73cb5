import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscope.errors import LayerscopeError
from layerscope.text.stars import has_stars, parse_stars, with_stars

TEXTS = st.text(alphabet="ab *\\é", max_size=12)


def test_stars_mark_the_subject_and_leave_the_text():
    assert parse_stars("The *Eiffel* Tower") == ("The Eiffel Tower", (4, 10))


def test_an_escaped_star_is_a_star():
    assert parse_stars(r"2 \* *x* \* y") == ("2 * x * y", (4, 5))


def test_backslashes_count_only_before_a_star():
    assert parse_stars(r"a\b\\c *x*") == (r"a\b\\c x", (7, 8))
    assert parse_stars(r"*x\\* y") == ("x\\ y", (0, 2))


@given(before=TEXTS, subject=TEXTS.filter(str.strip), after=TEXTS)
def test_every_text_survives_being_written_with_stars(before, subject, after):
    text, span = before + subject + after, (len(before), len(before) + len(subject))

    assert parse_stars(with_stars(text, span)) == (text, span)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no stars", "no star in"),
        ("one *star", "one star without its partner"),
        ("*two* of *them*", "4 stars"),
        ("nothing ** here", "nothing but blanks"),
        ("nothing * * here", "nothing but blanks"),
    ],
)
def test_other_numbers_of_stars_are_refused(text, found):
    with pytest.raises(LayerscopeError, match="line 3") as caught:
        parse_stars(text, where="x.jsonl, line 3")

    assert found in str(caught.value)


def test_escaped_stars_do_not_count_as_marks():
    assert not has_stars(r"2 \* 3")
    assert has_stars("a *b* c")
