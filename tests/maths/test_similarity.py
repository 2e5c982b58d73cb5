import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerscope.maths.similarity import centred_cosine, cosine, norm

STATES = arrays(np.float64, (3, 4), elements=st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-3))


def test_norm_of_a_hand_worked_case():
    np.testing.assert_allclose(norm(np.array([[3.0, 4], [0, -2]])), [5, 2])


def test_cosine_of_a_hand_worked_case():
    # 45 degrees, then opposite directions of different length
    a, b = np.array([[1.0, 0], [2, 2]]), np.array([[3.0, 3], [-1, -1]])

    np.testing.assert_allclose(cosine(a, b), [np.sqrt(0.5), -1])


def test_centred_cosine_of_a_hand_worked_case():
    # less the centre (1, 0): a = (1, 0), (-1, 0); b = (1, 1), (0, -1)
    a, b = np.array([[2.0, 0], [0.0, 0]]), np.array([[2.0, 1], [1.0, -1]])

    np.testing.assert_allclose(centred_cosine(a, b, centre=np.array([1.0, 0])), [1 / np.sqrt(2), 0])


def test_a_shared_direction_makes_uncentred_states_look_alike():
    rng = np.random.default_rng(0)
    shared = 100 * np.ones(64)
    a, b = shared + rng.normal(size=(50, 64)), shared + rng.normal(size=(50, 64))

    assert cosine(a, b).min() > 0.99
    assert abs(centred_cosine(a, b, centre=shared).mean()) < 0.1


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_a_zero_state_has_no_direction(library):
    a, b = library([[0.0, 0], [1, 2]]), library([[1.0, 0], [0, 0]])

    assert np.isnan(np.asarray(cosine(a, b))).all()
    assert np.isnan(np.asarray(centred_cosine(a, b, centre=library([1.0, 2.0])))).tolist() == [False, True]


def test_float16_states_do_not_overflow():
    state = torch.full((4,), 200.0, dtype=torch.float16)

    assert norm(state).item() == 400
    assert norm(state.numpy()) == 400


def test_a_centre_is_removed_in_float32():
    # In bfloat16 both states would round to the centre's neighbours and point the same way.
    a = torch.tensor([256.0, 1.0], dtype=torch.bfloat16)
    centre = torch.tensor([256.5, 0.0])

    assert centred_cosine(a, a, centre=centre).item() == pytest.approx(1)
    assert cosine(a - centre, torch.tensor([-0.5, 1.0])).item() == pytest.approx(1)
    assert centred_cosine(a, a + torch.tensor([1.0, 0.0]), centre=centre).item() == pytest.approx(0.75 / 1.25)


@given(STATES, STATES, st.floats(0.1, 100))
def test_cosine_is_symmetric_bounded_and_blind_to_length(a, b, scale):
    found = cosine(a, b)

    np.testing.assert_allclose(found, cosine(b, a))
    np.testing.assert_allclose(found, cosine(scale * a, b), atol=1e-12)
    assert not (abs(found) > 1).any()


@given(STATES, STATES, arrays(np.float64, 4, elements=st.floats(-10, 10)))
def test_numpy_and_torch_agree(a, b, centre):
    tensors = torch.tensor(a), torch.tensor(b)

    np.testing.assert_allclose(cosine(a, b), cosine(*tensors).numpy(), atol=1e-12)
    np.testing.assert_allclose(norm(a), norm(tensors[0]).numpy())
    centred = centred_cosine(a, b, centre=centre)
    np.testing.assert_allclose(
        centred, centred_cosine(*tensors, centre=torch.tensor(centre)).numpy(), atol=1e-9
    )


def test_cosines_between_are_the_cosines_of_all_pairs() -> None:
    from layerscope.maths.similarity import cosine, cosines_between

    states = np.random.default_rng(0).standard_normal((2, 4, 6))
    one, other = (states[:, at] for at in np.indices((4, 4)).reshape(2, -1))
    expected = cosine(one, other).reshape(2, 4, 4)
    np.testing.assert_allclose(cosines_between(states), expected, atol=1e-12)
    assert np.isnan(cosines_between(np.zeros((1, 2, 3)))).all()
