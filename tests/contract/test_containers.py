"""Containers of bags and data frames as bags: whatever has a rectangular form is read."""

from collections import UserList, deque

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.utils import check_array

from skfisher import Bags, PositionAppender
from skfisher.contract.validation import check_bags


def read(X):
    return check_bags(PositionAppender(), X, reset=True)


def make_list(lengths=(3, 1, 4), n_features=2):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(t, n_features)) for t in lengths]


def object_array(arrays):
    array = np.empty(len(arrays), dtype=object)
    array[:] = arrays
    return array


class Dataset:
    """As of a file: an array once it is asked for, and a shape before."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize(
    "container",
    [
        deque,
        lambda arrays: dict(enumerate(arrays)).values(),
        lambda arrays: [Dataset(array) for array in arrays],
        lambda arrays: object_array([Dataset(array) for array in arrays]),
        lambda arrays: UserList(arrays),
        lambda arrays: [np.ma.array(array, mask=False) for array in arrays],
        lambda arrays: [array.astype(object) for array in arrays],
        lambda arrays: [deque(array) for array in arrays],
        lambda arrays: [memoryview(array) for array in arrays],
        lambda arrays: polars.Series([array.tolist() for array in arrays]),
        lambda arrays: pd.Series(arrays),
    ],
    ids=[
        "deque",
        "values",
        "datasets",
        "objects",
        "UserList",
        "no mask",
        "numbers",
        "rows",
        "views",
        "series of Polars",
        "series of pandas",
    ],
)
def test_containers_of_bags(container):
    arrays = make_list()
    for bag, array in zip(read(container(arrays)), arrays, strict=True):
        np.testing.assert_array_equal(bag, array)


FRAMES = {
    "Float64": lambda x: pd.DataFrame(x).astype("Float64"),
    "Float32": lambda x: pd.DataFrame(x).astype("Float32"),
    "Int64": lambda x: pd.DataFrame(x).round().astype("Int64"),
    "boolean": lambda x: pd.DataFrame(x > 0).astype("boolean"),
    "Int8 and Float32": lambda x: pd.DataFrame(x).round().astype({0: "Int8", 1: "Float32"}),
    "bool among floats": lambda x: pd.DataFrame({"a": x[:, 0] > 0, "b": x[:, 1]}),
    "bool among Float32": lambda x: pd.DataFrame({"a": x[:, 0] > 0, "b": x[:, 1]}).astype(
        {"b": "Float32"}
    ),
    "objects": lambda x: pd.DataFrame(x.astype(object)),
    "objects among floats": lambda x: pd.DataFrame({"a": x[:, 0].astype(object), "b": x[:, 1]}),
    "categories": lambda x: pd.DataFrame(x.round()).astype("category"),
    "float32": lambda x: pd.DataFrame(x, dtype="float32"),
}


@pytest.mark.parametrize("form", FRAMES)
def test_a_frame_is_the_same_numbers_as_a_table_and_as_a_bag(form):
    arrays = [FRAMES[form](array) for array in make_list()]
    bags = read(arrays)
    for bag, frame in zip(bags, arrays, strict=True):
        np.testing.assert_array_equal(bag, check_array(frame))
        np.testing.assert_array_equal(bag, read(frame).values)
        np.testing.assert_array_equal(bag, Bags(frame, [0], [len(frame)])[0])
    narrow = ("Float32", "float32", "bool among Float32", "Int8 and Float32")
    assert (bags.dtype == np.float32) == (form in narrow)


@pytest.mark.parametrize("form", ["Float64", "Float32", "objects"])
def test_what_is_missing_in_a_frame_is_nan(form):
    arrays = make_list()
    arrays[2][1, 0] = np.nan
    frames = [FRAMES[form](array) for array in arrays]
    if form == "objects":
        frames[2] = frames[2].replace(np.nan, pd.NA).astype(object)
    with pytest.raises(ValueError, match=r"X\[2\] contains NaN in descriptor 1\."):
        read(frames)
    with pytest.raises(ValueError, match=r"X\[1\] contains NaN in descriptor 0\."):
        read(frames[2])


def test_dtypes_of_other_packages_are_refused_by_what_to_write():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    X = make_list()
    X[2] = X[2].astype(ml_dtypes.bfloat16)
    with pytest.raises(TypeError, match=r"X\[2\] has dtype bfloat16, .* X\[2\]\.astype\(np\.flo"):
        read(X)


def test_tensors_of_arrow_are_a_cube():
    arrow = pytest.importorskip("pyarrow")
    cube = np.random.default_rng(0).normal(size=(4, 5, 2))
    bags = read(arrow.FixedShapeTensorArray.from_numpy_ndarray(cube))
    np.testing.assert_array_equal(np.stack(bags.to_list()), cube)
    for bag, array in zip(read(arrow.array(cube.tolist())), cube, strict=True):
        np.testing.assert_array_equal(bag, array)
