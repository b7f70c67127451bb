"""Lists of arrays are stacked unit by unit where they are read once."""

import joblib
import numpy as np
import pytest
from sklearn.decomposition import PCA

from skfisher import Bags, DescriptorTransformer, DiagonalGaussianMixture, FisherVectorEncoder
from skfisher.arrays.stacked import Stacked, alike_lengths, stacked_small
from tests.memory import peak_memory


def arrays(dtype=np.float64, lengths=(3, 1, 40, 2, 7)):
    rng = np.random.default_rng(0)
    return [(100 * rng.normal(size=(n, 4))).astype(dtype) for n in lengths]


def test_rows_are_those_of_the_stacked_array():
    parts = arrays()
    whole, lazy = np.concatenate(parts), Stacked(parts, np.cumsum([len(part) for part in parts]))
    assert (lazy.shape, lazy.dtype, len(lazy)) == (whole.shape, whole.dtype, len(whole))
    for first in range(len(whole) + 1):
        for last in range(len(whole) + 2):
            np.testing.assert_array_equal(lazy[first:last], whole[first:last])
    rows = np.random.default_rng(1).permutation(len(whole))[:20]
    np.testing.assert_array_equal(lazy[rows], whole[rows])
    np.testing.assert_array_equal(lazy[5], whole[5])
    assert np.shares_memory(lazy[6:10], parts[2])
    assert [len(part) for part in parts] == [3, 1, 40, 2, 7]


@pytest.mark.parametrize(
    "odd", [np.ones((2, 5)), np.ones((2, 4), np.float32), np.ones((0, 4)), np.ones(4), [[1.0] * 4]]
)
def test_arrays_that_are_not_alike(odd):
    assert alike_lengths(arrays()) is not None
    assert None is alike_lengths([*arrays(), odd])
    assert None is alike_lengths([odd, *arrays()])
    assert None is alike_lengths([])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_list_gives_the_bits_of_bags(monkeypatch, dtype, n_jobs):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 20)
    parts = arrays(dtype)
    bags = Bags.from_list(parts)
    options = {"random_state": 0, "n_jobs": n_jobs}
    encoder = FisherVectorEncoder(2, **options).fit(bags)
    np.testing.assert_array_equal(encoder.transform(parts), encoder.transform(bags))
    np.testing.assert_array_equal(encoder.transform(tuple(parts)), encoder.transform(bags))
    mixture = DiagonalGaussianMixture(2, **options).fit(bags)
    np.testing.assert_array_equal(mixture.predict_proba(parts), mixture.predict_proba(bags))
    scaled = DescriptorTransformer(PCA(2), **options).fit(bags)
    np.testing.assert_array_equal(scaled.transform(parts).values, scaled.transform(bags).values)
    with joblib.parallel_config("loky", n_jobs=2):
        np.testing.assert_array_equal(
            encoder.set_params(n_jobs=None).transform(parts), encoder.transform(bags)
        )


def test_arrays_of_other_orders_and_strides():
    parts = [np.asfortranarray(part) for part in arrays()]
    parts[2] = np.repeat(parts[2], 2, axis=0)[::2]
    encoder = FisherVectorEncoder(2, random_state=0).fit(arrays())
    np.testing.assert_array_equal(encoder.transform(parts), encoder.transform(arrays()))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_not_finite_is_named(dtype, value):
    encoder = FisherVectorEncoder(2, random_state=0).fit(arrays())
    parts = arrays(dtype)
    parts[2][17, 1] = float(value)
    what = {"nan": "NaN", "inf": "infinity"}[value]
    with pytest.raises(ValueError, match=rf"X\[2\] contains {what} in descriptor 17"):
        encoder.transform(parts)


def test_a_number_too_large_to_square_is_a_number():
    encoder = FisherVectorEncoder(2, random_state=0).fit(arrays())
    parts = arrays(np.float32)
    parts[2][17, 1] = 1e30
    with pytest.raises(ValueError, match=r"X\[2\] has a descriptor .* standard deviations from"):
        encoder.transform(parts)
    assert np.isfinite(encoder.transform([part.astype(np.float64) for part in parts])).all()


def test_a_list_is_not_copied_as_a_whole():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(5_000, 32)).astype(np.float32) for _ in range(40)]
    encoder = FisherVectorEncoder(2, random_state=0, max_iter=2).fit(parts[:2])
    n_bytes = sum(part.nbytes for part in parts)
    assert peak_memory(lambda: encoder.transform(parts)) < n_bytes / 2


@pytest.mark.parametrize("odd", [np.ones((2, 5)), np.ones((2, 4), np.float32), np.array(1.0)])
def test_small_arrays_are_stacked_at_once(odd):
    values, lengths = stacked_small(arrays())
    np.testing.assert_array_equal(values, np.concatenate(arrays()))
    np.testing.assert_array_equal(lengths, [3, 1, 40, 2, 7])
    assert stacked_small([*arrays(), odd]) is None
    assert stacked_small([*arrays(), np.ones((0, 4))]) is None
    assert stacked_small([np.ones((500, 4))] * 3) is None


def test_an_infinite_descriptor_of_a_list_is_named_whatever_the_sizes():
    encoder = FisherVectorEncoder(2, random_state=0).fit(arrays())
    for length in (2, 500, 5000):
        bags = [np.ones((length, 4)) for _ in range(3)]
        bags[1][length - 1, 2] = np.inf
        with pytest.raises(
            ValueError, match=rf"X\[1\] contains infinity in descriptor {length - 1}"
        ):
            encoder.transform(bags)
        with pytest.raises(
            ValueError, match=rf"X\[0\] contains infinity in descriptor {length - 1}"
        ):
            encoder.transform(bags[1:2])
        bags[1][length - 1, 2] = 1e200  # finite, unlike its square
        with pytest.raises(ValueError, match=r"X\[1\] has a descriptor so far|X\[1\]"):
            encoder.transform(bags)
