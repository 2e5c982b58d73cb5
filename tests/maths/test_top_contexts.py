from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscope.maths.top_contexts import best_places, fingerprints


def test_the_best_of_a_small_stream_by_hand() -> None:
    unit = np.array([0, 0, 0, 0, 1])
    value = np.array([3.0, 5.0, 5.0, 4.0, 1.0])
    text, position = np.array([0, 2, 1, 0, 7]), np.array([0, 0, 0, 1, 0])
    alike = np.array([10, 11, 12, 12, 10])

    kept, rank = best_places(unit, value, text, position, alike, most=2)

    # of the equal fives the earlier text is first; the four reads like one of them and counts no more
    assert kept.tolist() == [2, 1, 4]
    assert rank.tolist() == [0, 1, 0]


def test_without_places_there_is_nothing_to_keep() -> None:
    nothing = np.empty(0, dtype=np.int64)

    kept, rank = best_places(nothing, nothing.astype(float), nothing, nothing, nothing, most=3)

    assert kept.size == rank.size == 0


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_a_stream_in_pieces_gives_what_sorting_all_of_it_gives(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    unit, text, position = rng.integers(0, 3, n), rng.permutation(n), rng.integers(0, 4, n)
    value, alike = rng.integers(0, 5, n).astype(float), rng.integers(0, 12, n)

    kept = np.empty(0, dtype=np.int64)
    for piece in np.array_split(rng.permutation(n), 4):
        both = np.concatenate([kept, piece])
        kept = both[best_places(*(a[both] for a in (unit, value, text, position, alike)), most=most)[0]]

    expected: list[int] = []
    for one in range(3):
        seen: set[int] = set()
        for place in sorted(np.flatnonzero(unit == one), key=lambda i: (-value[i], text[i], position[i])):
            if alike[place] not in seen and len(seen) < most:
                seen.add(int(alike[place]))
                expected.append(int(place))
    assert kept.tolist() == expected


def test_fingerprints_are_equal_where_the_last_tokens_are() -> None:
    ids = np.array([[7, 1, 2, 3, 9], [8, 1, 2, 3, 9], [1, 2, 3, 1, 2]])

    three = fingerprints(ids, 3)

    assert three[0, 3] == three[1, 3] == three[2, 2]  # 1 2 3, wherever it stands
    assert three[0, 2] != three[1, 2]  # 7 1 2 and 8 1 2
    assert three[2, 1] != three[2, 4]  # 1 2 alone, and after a 3
    assert len(set(fingerprints(ids, 5).ravel().tolist())) == 15  # no two beginnings are equal
