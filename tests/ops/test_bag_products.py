"""Array code on devices: chunks that fill them, and no kernel for every bag."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skfisher.arrays.libraries import to_host
from skfisher.ops import chunks, soft_assignment
from skfisher.ops.bag_products import Pieces
from skfisher.ops.fisher import fisher_vector, fisher_vector_vjp
from tests import device_array

K, D = 4, 3


class Case:
    def __init__(self, lengths, offset=0.0):
        rng = np.random.default_rng(0)
        self.stops = np.cumsum(lengths)
        self.starts = self.stops - lengths
        mixture = rng.dirichlet(np.ones(K)), rng.normal(size=(K, D)) + offset, np.ones((K, D))
        self.arrays = [rng.normal(size=(self.stops[-1], D)) + offset, *mixture]
        self.g = rng.normal(size=(len(lengths), K * (2 * D + 1)))

    def results(self, xp):
        x, *mixture = (xp.asarray(a) for a in self.arrays)
        arguments = x, self.starts, self.stops, *mixture
        y = fisher_vector(*arguments)
        return [to_host(a) for a in (y, *fisher_vector_vjp(xp.asarray(self.g), *arguments))]


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_pieces_hold_every_row_once(lengths):
    stops = np.cumsum(lengths)
    starts = stops - lengths
    pieces = Pieces.of(stops - starts)
    np.testing.assert_array_equal(pieces.rows[pieces.inside], np.arange(stops[-1]))
    for owner, rows in zip(pieces.owners, pieces.rows, strict=True):
        assert starts[owner] <= rows.min() <= rows.max() < stops[owner]
    assert pieces.rows.size < 2 * stops[-1] + len(lengths)


@pytest.mark.parametrize("offset", [0, 20])
@pytest.mark.parametrize("numbers", [2**25, 200])
@pytest.mark.parametrize("lengths", [[5, 1, 30, 2], [6, 6, 6], [40], [1, 1, 9, 70]])
def test_devices_give_what_the_host_does(device_library, monkeypatch, lengths, numbers, offset):
    # 200 numbers are 20 rows to a chunk, and bags are cut
    monkeypatch.setattr(chunks, "DEVICE_NUMBERS", numbers)
    case = Case(lengths, offset)
    for found, expected in zip(case.results(device_library), case.results(np), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * abs(expected).max())


def test_totals_on_devices(device_library, monkeypatch):
    case = Case([5, 1, 30])
    monkeypatch.setattr(chunks, "DEVICE_NUMBERS", 200)
    found, expected = (
        soft_assignment.total_statistics(
            xp.asarray(case.arrays[0]),
            case.starts[::-1], case.stops[::-1],
            [xp.asarray(a) for a in (case.arrays[2], -case.arrays[3], case.arrays[1])],
        )
        for xp in (device_library, np)
    )  # fmt: skip
    for f, e in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(to_host(f), e, rtol=1e-12)
    assert found[1] == pytest.approx(expected[1])


def test_work_on_a_device_does_not_grow_by_the_bag(stand_in, monkeypatch):
    n_results = []
    wrapped = device_array.wrapped

    def counted(x):
        n_results[-1] += 1
        return wrapped(x)

    monkeypatch.setattr(device_array, "wrapped", counted)
    for n_bags in (10, 500):
        lengths = np.random.default_rng(1).integers(1, 30, size=n_bags)
        n_results.append(0)
        Case(lengths).results(stand_in)
    assert n_results[0] == n_results[1]
