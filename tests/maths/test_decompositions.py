import numpy as np
import pytest
import torch

from layerscope.maths.decompositions import (
    gaps,
    near_equal,
    product_directions,
    random_directions,
    random_rotation,
    read_directions,
    turned,
    write_directions,
)


def matrices(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_the_fast_product_agrees_with_the_plain_svd_of_the_whole_product(library: str, rank: int) -> None:
    first, second = matrices((3, 12, rank), (3, rank, 12))
    given = (torch.tensor(first), torch.tensor(second)) if library == "torch" else (first, second)

    found = product_directions(*given)

    plain = np.linalg.svd(first @ second)
    scales, reads, writes = (np.asarray(part) for part in found)
    np.testing.assert_allclose(scales, plain[1][:, :rank], atol=1e-10)
    for head in range(3):
        u, v = plain[0][head][:, :rank].T, plain[2][head][:rank]
        sign = np.sign((u * reads[head]).sum(-1, keepdims=True))
        np.testing.assert_allclose(sign * reads[head], u, atol=1e-8)
        np.testing.assert_allclose(sign * writes[head], v, atol=1e-8)  # one sign for both sides
    np.testing.assert_allclose(np.einsum("hk,hkd,hke->hde", scales, reads, writes), first @ second, atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 7)])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_one_sided_directions_agree_with_the_plain_svd(shape: tuple[int, int], library: str) -> None:
    (matrix,) = matrices(shape)
    given = torch.tensor(matrix) if library == "torch" else matrix

    read, write = read_directions(given), write_directions(given)

    u, scales, v = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(np.asarray(read.scales), scales, atol=1e-10)
    np.testing.assert_allclose(np.asarray(write.scales), scales, atol=1e-10)
    assert read.reads is not None
    assert write.writes is not None
    np.testing.assert_allclose(abs((np.asarray(read.reads) * u.T).sum(-1)), 1, atol=1e-10)
    np.testing.assert_allclose(abs((np.asarray(write.writes) * v).sum(-1)), 1, atol=1e-10)


def test_half_precision_is_decomposed_in_float32() -> None:
    (matrix,) = matrices((4, 9))

    assert read_directions(torch.tensor(matrix).bfloat16()).scales.dtype == torch.float32


def test_gaps_of_a_hand_worked_spectrum() -> None:
    np.testing.assert_allclose(gaps(np.array([4.0, 2.0, 2.0, 0.0])), [2.0, 1.0, np.nan, np.nan])


def test_near_equal_values_share_a_subspace_that_is_anchored_at_its_largest() -> None:
    # 1.00 and 0.99 lie within 2 %; 0.975 lies within 2 % of 0.99, but not of 1.00
    scales = np.array([3.0, 1.0, 0.99, 0.975, 0.97, 0.1, 0.0, 0.0])

    assert near_equal(scales).tolist() == [0, 1, 1, 2, 2, 3, 4, 4]
    assert near_equal(scales, ratio=1.05).tolist() == [0, 1, 1, 1, 1, 2, 3, 3]


def test_rotations_are_orthogonal_and_random_directions_have_length_one() -> None:
    rng = np.random.default_rng(1)
    rotation = random_rotation(7, generator=rng)

    np.testing.assert_allclose(rotation @ rotation.T, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(random_directions(5, 9, generator=rng), axis=1), 1)


def test_the_end_that_stands_out_further_is_plus() -> None:
    assert turned(
        np.array([1.0, 1.0, 0.0]), positive=np.array([2.0, 1.0, 1.0]), negative=np.array([-1.0, -3.0, -3.0])
    ).tolist() == [False, True, False]
