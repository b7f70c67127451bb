import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skfisher.ops.chunks import Frame, Rows, chunk_rows, iter_chunks, iter_row_chunks

lengths_of_bags = st.lists(st.integers(1, 5000), min_size=1, max_size=30)


def bounds(lengths):
    stops = np.cumsum(lengths)
    return stops - np.asarray(lengths), stops


@given(lengths_of_bags, st.integers(1, 300), st.integers(1, 100))
def test_chunks_cover_every_bag_once_and_in_order(lengths, k, d):
    starts, stops = bounds(lengths)
    covered, open_bag = [], None
    for chunk in iter_chunks(starts, stops, k, d):
        covered += [range(a, b) for a, b in zip(chunk.starts, chunk.stops, strict=True)]
        # parts of a bag follow each other, the first and the last one marked
        assert chunk.first == (open_bag is None)
        open_bag = None if chunk.last else chunk.bags
        assert int((chunk.stops - chunk.starts).sum()) <= max(chunk_rows(k, d), 1)
        assert len(chunk.starts) == chunk.bags.stop - chunk.bags.start
    assert open_bag is None
    assert [i for run in covered for i in run] == list(range(stops[-1]))


@given(lengths_of_bags, st.integers(1, 700), st.randoms(use_true_random=False))
def test_row_chunks_cover_every_descriptor_once_and_in_order(lengths, rows, random):
    starts, stops = bounds(lengths)
    order = list(range(len(lengths)))
    random.shuffle(order)
    starts, stops = starts[order], stops[order]
    wanted = [i for a, b in zip(starts, stops, strict=True) for i in range(a, b)]
    seen = []
    for run_starts, run_stops in iter_row_chunks(starts, stops, rows):
        n = int((run_stops - run_starts).sum())
        assert 0 < n <= rows
        seen += [i for a, b in zip(run_starts, run_stops, strict=True) for i in range(a, b)]
    assert seen == wanted


def test_the_cuts_of_a_bag_do_not_depend_on_its_neighbours():
    alone = [c.stops - c.starts for c in iter_chunks(*bounds([5000]), 32, 64)]
    among = [
        c.stops - c.starts
        for c in iter_chunks(*bounds([7, 5000, 3000]), 32, 64)
        if c.bags.start == 1
    ]
    np.testing.assert_array_equal(alone, among)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize(
    ("starts", "stops"),
    [([3], [9]), ([0, 4], [4, 9]), ([5, 0], [9, 4]), ([8, 2, 4], [9, 3, 5])],
    ids=["one run", "two that touch", "apart", "scattered rows"],
)
def test_rows_are_read_in_order_converted_and_framed(dtype, framed, starts, stops):
    x = (np.arange(30).reshape(10, 3) * 5).astype(dtype)
    frame = Frame(np.array([1.0, 2, 3]), np.array([2.0, 4, 0.5])) if framed else None
    before = x.copy()
    y, squares = Rows(16, x, frame, np.float32).read(np.array(starts), np.array(stops))
    wanted = np.concatenate([x[a:b] for a, b in zip(starts, stops, strict=True)]).astype(float)
    if framed:
        wanted = (wanted - frame.shift) / frame.scale
    np.testing.assert_array_equal(y, wanted.astype(np.float32))
    np.testing.assert_array_equal(squares, (wanted**2).astype(np.float32))
    assert y.dtype == squares.dtype == np.float32
    np.testing.assert_array_equal(x, before)
