import subprocess
import sys

import numpy as np
import pytest
import torch

from layerscope.maths.arrays import at_least_float32, divide, to_float64


def test_maths_is_importable_without_torch_and_without_scipy():
    rooms = ["bootstrap", "moments", "path", "permutation", "recovery", "similarity", "transitions"]
    lines = [f"import layerscope.maths.{room}" for room in rooms]
    lines.append("import sys; assert not {'torch', 'scipy', 'statsmodels', 'xarray'} & set(sys.modules)")

    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype):
    assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == torch.float32
    assert at_least_float32(np.ones(2, dtype=np.float16)).dtype == np.float32


def test_finer_precision_is_kept():
    assert at_least_float32(torch.ones(2, dtype=torch.float64)).dtype == torch.float64
    assert at_least_float32(np.ones(2)).dtype == np.float64


def test_tensors_of_every_kind_become_float64_arrays():
    weights = torch.tensor([1.5, -2.0], requires_grad=True)

    for values in (
        weights,
        weights.bfloat16(),
        weights.to(torch.int64) * 1.0,
        np.array([1.5, -2], np.float16),
    ):
        assert to_float64(values).dtype == np.float64
    np.testing.assert_array_equal(to_float64(weights), [1.5, -2])


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_a_ratio_to_nothing_is_unknown(library):
    ratio = divide(library([6.0, 1.0, -1.0, 0.0]), library([3.0, 0.0, 0.0, 0.0]))

    np.testing.assert_array_equal(np.asarray(ratio), [2, np.nan, np.nan, np.nan])
