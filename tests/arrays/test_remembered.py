"""Functions that remember what they returned: never stale, never written to."""

import threading

import numpy as np
import pytest

from skfisher import FisherVectorEncoder
from skfisher.arrays.remembered import BYTES, CALLS, remembering


def counted():
    """Return a remembering function of arrays, and a list with an entry for each real call."""
    calls = []

    @remembering
    def doubled(name, *arrays):
        calls.append(name)
        return name, [2 * array for array in arrays]

    return doubled, calls


def test_what_was_asked_before_is_not_computed_again():
    doubled, calls = counted()
    x = np.arange(6.0).reshape(2, 3)
    first = doubled("a", x)
    assert doubled("a", x.copy()) is first
    assert calls == ["a"]
    np.testing.assert_array_equal(first[1][0], 2 * x)


@pytest.mark.parametrize(
    "other",
    [
        ("b", np.arange(6.0).reshape(2, 3)),
        ("a", np.arange(6.0)),
        ("a", np.arange(6.0).reshape(3, 2)),
        ("a", np.arange(6.0).reshape(2, 3).view(np.int64)),
        ("a", -np.arange(6.0).reshape(2, 3)),  # a zero of another sign among them
    ],
)
def test_anything_else_is_computed(other):
    doubled, calls = counted()
    doubled("a", np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(doubled(*other)[1][0], 2 * other[1])
    assert len(calls) == 2


def test_an_array_that_was_written_to_is_another():
    doubled, _ = counted()
    x = np.zeros(3)
    doubled("a", x)
    x[1] = 5
    np.testing.assert_array_equal(doubled("a", x)[1][0], [0, 10, 0])


def test_results_cannot_be_written_to_and_are_not_the_callers():
    same = remembering(lambda x: x)
    x = np.zeros(3)
    result = same(x)
    with pytest.raises(ValueError, match="read-only"):
        result[0] = 1
    x[0] = 1
    assert same(np.zeros(3))[0] == 0


def test_few_calls_and_no_large_arrays_are_kept():
    doubled, calls = counted()
    for i in [*range(CALLS + 1), 0]:
        doubled(i, np.zeros(1))
    assert calls == [*range(CALLS + 1), 0]
    large = np.zeros(BYTES // 8 + 1)
    doubled("large", large)
    doubled("large", large)
    assert calls[-2:] == ["large", "large"]


def test_threads_get_their_own_results():
    doubled, _ = counted()
    wrong = []

    def ask(i):
        x = np.full(4, float(i))
        for _ in range(200):
            name, (result,) = doubled(i % 3, x)
            if name != i % 3 or (result != 2 * x).any():
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_encodings_follow_parameters_that_are_written_to(dtype):
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(20, 3)).astype(dtype) for _ in range(4)]
    encoder = FisherVectorEncoder(2, random_state=0).fit(bags)
    before = encoder.transform(bags)
    kept = encoder.means_.copy()
    encoder.means_[0] += 1
    moved = encoder.transform(bags)
    assert np.abs(moved - before).max() > 0.1
    encoder.variances_[1, 0] = -1
    with pytest.raises(ValueError, match=r"variances_\[1, 0\] is -1"):
        encoder.transform(bags)
    encoder.variances_[1, 0] = 1
    encoder.means_[...] = kept
    assert not np.array_equal(encoder.transform(bags), before)
