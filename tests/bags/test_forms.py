"""Bags from tables, groups and padded arrays, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skfisher import Bags, FisherVectorEncoder


def plain(values, groups):
    """Return the keys and bags by a loop."""
    found = {}
    for row, group in zip(values, groups, strict=True):
        found.setdefault(group, []).append(row)
    return list(found), [np.array(rows) for rows in found.values()]


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=30))
def test_groups_are_as_a_loop_finds_them(groups):
    values = np.arange(2.0 * len(groups)).reshape(-1, 2)
    bags, keys = Bags.from_groups(values, groups)
    expected_keys, expected = plain(values, groups)
    assert keys.tolist() == expected_keys
    for bag, rows in zip(bags, expected, strict=True):
        assert_array_equal(bag, rows)


def test_groups_that_lie_side_by_side_are_not_copied():
    values = np.arange(8.0).reshape(4, 2)
    bags, _ = Bags.from_groups(values, [3, 3, 1, 1])
    assert np.shares_memory(bags.values, values)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2], r"groups has shape \(2,\), but values has 3 descriptors"),
        ([1.0, np.nan, 2.0], r"groups\[1\] is missing"),
        (np.array(["a", None, "b"], dtype=object), r"groups\[1\] is missing"),
    ],
)
def test_bad_groups_are_named(groups, message):
    with pytest.raises(ValueError, match=message):
        Bags.from_groups(np.zeros((3, 2)), groups)


def frames(library):
    package = pytest.importorskip(library)
    columns = {
        "who": ["b", "a", "b", "b"], "day": [1, 1, 2, 1],
        "x": [0.0, 2.0, 4.0, 6.0], "y": [1.0, 3.0, 5.0, 7.0],
    }  # fmt: skip
    return package.table(columns) if library == "pyarrow" else package.DataFrame(columns)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_are_grouped_by_columns(library):
    frame = frames(library)
    bags, keys = Bags.from_frame(frame, by="who", columns=["x", "y"])
    assert keys.tolist() == ["b", "a"]
    assert_array_equal(bags[0], [[0, 1], [4, 5], [6, 7]])
    assert bags.feature_names.tolist() == ["x", "y"]
    bags, keys = Bags.from_frame(frame, by=["who", "day"])
    assert keys.tolist() == [["b", 1], ["a", 1], ["b", 2]]
    assert [bag.tolist() for bag in bags] == [[[0, 1], [6, 7]], [[2, 3]], [[4, 5]]]
    encoder = FisherVectorEncoder(1).fit(bags)
    assert encoder.get_feature_names_out()[1] == "mean_k0_x"


def test_frames_without_the_column_are_refused():
    frame = frames("pandas")
    with pytest.raises(KeyError, match="no column 'when'; it has"):
        Bags.from_frame(frame, by="when")
    with pytest.raises(ValueError, match="there are no descriptors"):
        Bags.from_frame(frame[["who"]], by="who")
    frame.loc[2, "who"] = None
    with pytest.raises(ValueError, match=r"who\[2\] is missing"):
        Bags.from_frame(frame, by="who", columns=["x"])
    with pytest.raises((TypeError, ValueError)):
        Bags.from_frame(frames("pandas"), by="day")  # who is no number


def test_padding_is_left_out():
    x = np.arange(24.0).reshape(2, 4, 3)
    bags = Bags.from_padded(x, lengths=[4, 2])
    assert np.shares_memory(bags.values, x)
    assert bags.lengths.tolist() == [4, 2]
    assert_array_equal(bags[1], x[1, :2])
    mask = np.array([[True, True, True, True], [True, True, False, False]])
    same = Bags.from_padded(x, mask=mask)
    assert np.shares_memory(same.values, x)
    assert_array_equal(same[1], bags[1])
    mask = np.array([[True, False, True, True], [False, True, False, True]])
    bags = Bags.from_padded(x, mask=mask)
    assert_array_equal(bags[0], x[0, [0, 2, 3]])
    assert_array_equal(bags[1], x[1, [1, 3]])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, ValueError, "either lengths or mask"),
        ({"lengths": [1, 5]}, ValueError, r"lengths\[1\] is 5, but there are 4 rows a bag"),
        ({"lengths": [1, -1]}, ValueError, r"lengths\[1\] is -1"),
        ({"lengths": [1.0, 2.0]}, TypeError, "lengths must be integers"),
        ({"lengths": [1]}, ValueError, r"lengths must have shape \(2,\)"),
        ({"mask": np.ones((2, 4))}, TypeError, "mask must be of booleans"),
        ({"mask": np.ones((2, 3), dtype=bool)}, ValueError, r"mask must have shape \(2, 4\)"),
    ],
)
def test_bad_padding_is_named(arguments, kind, message):
    with pytest.raises(kind, match=message):
        Bags.from_padded(np.zeros((2, 4, 3)), **arguments)


def test_bags_become_lists_and_frames():
    bags = Bags.from_lengths(np.arange(6.0).reshape(3, 2), [2, 1])
    assert [bag.tolist() for bag in bags.to_list()] == [[[0, 1], [2, 3]], [[4, 5]]]
    frame = bags.to_frame()
    assert list(frame.columns) == ["bag", "d0", "d1"]
    assert frame["bag"].tolist() == [0, 0, 1]
    again, keys = Bags.from_frame(frame, by="bag")
    assert keys.tolist() == [0, 1]
    assert_array_equal(again.values, bags.values)
