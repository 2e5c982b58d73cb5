import numpy as np
import pytest

from layerscope.maths.coherence import (
    common_part,
    cooccurrence_vectors,
    mean_pairwise_cosine,
    share_of_commonest,
)


def test_mean_pairwise_cosine_of_a_hand_worked_case() -> None:
    # pairs: (a, b) 1, (a, c) 0, (b, c) 0; lengths do not count
    vectors = np.array([[2.0, 0.0], [5.0, 0.0], [0.0, 3.0]])

    np.testing.assert_allclose(mean_pairwise_cosine(vectors, fewest=2), 1 / 3)


def test_it_agrees_with_a_loop_over_pairs() -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 6, 4))
    units = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    pairs = [[units[b, i] @ units[b, j] for i in range(6) for j in range(i)] for b in range(2)]

    np.testing.assert_allclose(mean_pairwise_cosine(vectors), np.mean(pairs, axis=1))


def test_what_all_vectors_share_is_taken_out() -> None:
    # mean (9, 0, 0); the second axis carries nearly all of the variance and goes too
    vectors = np.array([[9.0, 5.0, 1.0], [9.0, -5.0, 1.0], [9.0, 5.0, -1.0], [9.0, -5.0, -1.0]])

    left = common_part(vectors, 1, at_once=3).taken_from(vectors)

    np.testing.assert_allclose(left, [[0, 0, 1], [0, 0, 1], [0, 0, -1], [0, 0, -1]], atol=1e-12)


def test_members_without_a_vector_do_not_count_and_too_few_give_nothing() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    known = np.array([True, True, False, True])

    np.testing.assert_allclose(mean_pairwise_cosine(vectors, known=known, fewest=2), 1.0)
    assert np.isnan(mean_pairwise_cosine(vectors, known=known, fewest=3))


def test_random_members_have_no_coherence_on_average() -> None:
    sets = np.random.default_rng(0).standard_normal((500, 15, 30))

    assert abs(mean_pairwise_cosine(sets).mean()) < 0.002


def test_share_of_the_commonest_label() -> None:
    assert share_of_commonest(np.array(["a", "b", "a", "", "a", "b"]), fewest=5) == pytest.approx(0.6)
    assert np.isnan(share_of_commonest(np.array(["a", "", ""]), fewest=2))


def test_tokens_that_keep_the_same_company_lie_together() -> None:
    # 0 and 1 stand between 4 and 5, 2 and 3 between 6 and 7
    rng = np.random.default_rng(0)
    texts = [
        np.array([4, rng.integers(0, 2), 5] if i % 2 else [6, rng.integers(2, 4), 7]) for i in range(200)
    ]
    vectors = cooccurrence_vectors(texts, 9, window=2, width=4)

    units = vectors[:8] / np.linalg.norm(vectors[:8], axis=1, keepdims=True)
    assert units[0] @ units[1] > 0.95
    assert units[2] @ units[3] > 0.95
    assert abs(units[0] @ units[2]) < 0.2
    assert not vectors[8].any()


def test_no_texts_give_zero_vectors() -> None:
    assert not cooccurrence_vectors([], 4).any()
