"""Shapes and types that signatures promise are checked in every test, nested functions excepted."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from layerscope.maths.quantiles import weighted_quantiles
from type_checker import check


def test_a_shape_that_a_signature_forbids_fails() -> None:
    with pytest.raises(TypeCheckError):
        weighted_quantiles(np.zeros((3, 2)), np.ones(4), [0.5])


def test_a_function_inside_another_is_not_compiled_anew_at_each_call() -> None:
    def inside(count: int) -> int:
        return count

    assert check(inside) is inside
    assert (
        check(test_a_shape_that_a_signature_forbids_fails) is not test_a_shape_that_a_signature_forbids_fails
    )
