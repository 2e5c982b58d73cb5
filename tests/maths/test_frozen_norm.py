import numpy as np
import torch

from layerscope.maths.frozen_norm import frozen_scale, scaled_by_gain


def test_the_parts_of_a_state_sum_to_what_a_root_mean_square_norm_gives() -> None:
    # x = (3, 4) = (3, 0) + (0, 4), root mean square sqrt(12.5); gain (2, 1): (6, 4) / sqrt(12.5)
    gain, shift = np.array([2.0, 1.0]), np.zeros(2)
    before, after = np.array([3.0, 4.0]), np.array([6.0, 4.0]) / np.sqrt(12.5)

    scale = frozen_scale(before, after, gain, shift, centres=False)
    parts = [scaled_by_gain(np.array(v), gain, centres=False) / scale for v in ([3.0, 0], [0, 4.0])]

    np.testing.assert_allclose(scale, np.sqrt(12.5))
    np.testing.assert_allclose(parts, [[6 / np.sqrt(12.5), 0], [0, 4 / np.sqrt(12.5)]])
    np.testing.assert_allclose(sum(parts), after)


def test_a_layer_norm_takes_the_mean_of_every_part_and_its_shift_once() -> None:
    # x = (1, 2, 6), mean 3, centred (-2, -1, 3), standard deviation sqrt(14/3); shift 0.5
    before = torch.tensor([[1.0, 2, 6]])
    norm = torch.nn.LayerNorm(3, eps=0.25)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2, 0.5]))
        norm.bias.fill_(0.5)
        after = norm(before)

    scale = frozen_scale(before, after, norm.weight.data, norm.bias.data, centres=True)
    parts = scaled_by_gain(torch.tensor([[1.0, 0, 0], [0, 2, 6]]), norm.weight.data, centres=True) / scale[0]

    torch.testing.assert_close(scale, torch.tensor([(14 / 3 + 0.25) ** 0.5]))
    torch.testing.assert_close(parts.sum(0) + 0.5, after[0])


def test_each_vector_is_centred_by_its_own_mean() -> None:
    vectors = np.array([[1.0, 3.0], [10.0, 30.0]])

    np.testing.assert_array_equal(
        scaled_by_gain(vectors, np.array([1.0, 2.0]), centres=True), [[-1, 2], [-10, 20]]
    )
