"""Numbers to be predicted: what is read, and what is refused, by name."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from skfisher.contract.numbers import read_numbers

GOOD = [0.5, 2.0, -1.0]


@pytest.mark.parametrize(
    "form",
    [
        list,
        np.array,
        pd.Series,
        lambda y: np.array(y, dtype=object),
        lambda y: np.array(y, dtype=np.float32),
        lambda y: pd.Series(y, dtype="Float64"),
    ],
)
def test_numbers_come_in_many_forms(form):
    found = read_numbers(form(GOOD), 3)
    assert found.dtype == np.float64
    assert found.tolist() == GOOD


def test_rows_of_numbers_stay_rows():
    rows = [[1, 2], [3, 4], [5, 7]]
    for form in (np.array, pd.DataFrame, csr_array):
        assert read_numbers(form(rows), 3).tolist() == rows
    assert read_numbers([[1], [2], [3]], 3).shape == (3, 1)


def test_integers_are_copied_to_floats():
    y = np.array([1, 2, 3])
    found = read_numbers(y, 3)
    found[0] = 0.5
    assert y.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, "the target y is None"),
        (3.0, ValueError, "y has a single value, but X has 3 bags"),
        ([1.0, 2.0], ValueError, "y has 2 values, but X has 3 bags"),
        (np.zeros((3, 2, 2)), ValueError, r"y has shape \(3, 2, 2\)"),
        (np.zeros((3, 0)), ValueError, r"y has shape \(3, 0\)"),
        (["a", "b", "a"], ValueError, "y holds strings, .* take JointClassifier"),
        ([True, False, True], ValueError, r"y holds booleans, .* or write y\.astype\(float\)"),
        (np.array([1.0, "a", 2.0], dtype=object), ValueError, r"y\[1\] is 'a': .*JointClassifier"),
        (pd.Categorical(["a", "b", "a"]), ValueError, r"y\[0\] is 'a': .*JointClassifier"),
        (np.array([1.0, 2.0, None], dtype=object), ValueError, r"y\[2\] is None: every bag needs"),
        ([1.0, np.nan, 2.0], ValueError, r"y\[1\] is NaN: every bag needs a finite number"),
        (pd.Series([1.0, 2.0, pd.NA], dtype="Float64"), ValueError, r"y\[2\] is NaN"),
        ([1.0, 2.0, -np.inf], ValueError, r"y\[2\] is infinity: every bag needs"),
        ([[1.0, 2], [3, np.nan], [4, 5]], ValueError, r"y\[1, 1\] is NaN"),
        ([1.0, 1e200, 2.0], ValueError, r"y\[1\] is 1e\+200: .* Take another unit"),
        ([1.0, 2j, 2.0], ValueError, "Complex data not supported: y has dtype complex128"),
        (np.array(["2026-11-29"] * 3, "M8[D]"), ValueError, "y holds datetime64"),
        ((v for v in GOOD), TypeError, r"y is a generator, .* Write list\(y\)"),
        ({1: 2.0}, TypeError, "y is a dict, but a list of numbers"),
    ],
)
def test_what_is_no_number_is_named(y, error, message):
    with pytest.raises(error, match=message):
        read_numbers(y, 3)


def test_other_names_are_said():
    with pytest.raises(ValueError, match=r"y_val\[0\] is NaN"):
        read_numbers([np.nan], 1, name="y_val")
