"""Arrays of a list are read where they lie, and give the bits that they give as `Bags`."""

import joblib
import numpy as np
import pytest

from skfisher import BagOfWordsEncoder, Bags, FisherVectorEncoder, VLADEncoder
from skfisher.arrays.stacked import Stacked
from skfisher.layers import codebook, encode
from tests.memory import peak_memory

D = 12
LENGTHS = [300, 90, 1, 700, 256, 130]  # of few enough numbers in all to be no small arrays


@pytest.fixture
def arrays(rng):
    return [rng.normal(size=(n, D)).astype(np.float32) for n in LENGTHS]


@pytest.fixture
def encoder(native, rng):
    return FisherVectorEncoder(5, random_state=0).fit([rng.normal(size=(200, D))])


def columns_first(array):
    return np.asfortranarray(array)


def part_of_wider(array):
    wide = np.full((len(array), D + 5), np.nan, array.dtype)
    wide[:, 2 : 2 + D] = array
    return wide[:, 2 : 2 + D]


def every_other_row(array):
    return np.repeat(array, 2, axis=0)[::2]


def backwards(array):
    return array[::-1].copy()[::-1]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


FORMS = [columns_first, part_of_wider, every_other_row, backwards, read_only, unaligned]
# of one stride between rows, and one between columns, whatever the length
READ_IN_PLACE = [part_of_wider, every_other_row, backwards, read_only, unaligned]


def stacked(arrays):
    return Stacked(arrays, np.cumsum(list(map(len, arrays))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_memory_of_any_form(encoder, arrays, form, n_jobs):
    expected = encoder.set_params(n_jobs=n_jobs).transform(Bags.from_list(arrays))
    formed = [form(array) for array in arrays]
    np.testing.assert_array_equal(encoder.transform(formed), expected)
    mixed = [form(array) if i % 2 else array for i, array in enumerate(arrays)]
    np.testing.assert_array_equal(encoder.transform(mixed), expected)


@pytest.mark.parametrize("dtype", ["f4", "i1", "u1", "i2", "u2", "f8", "f2", "i4", ">f4"])
def test_any_dtype(encoder, arrays, dtype):
    arrays = [(3 * array).astype(dtype) for array in arrays]
    np.testing.assert_array_equal(
        encoder.transform(arrays), encoder.transform(Bags.from_list(arrays))
    )


@pytest.mark.parametrize("n_numbers", [2**4, 2**17])
@pytest.mark.parametrize(
    "words",
    [BagOfWordsEncoder(4, random_state=0), VLADEncoder(4, assignment="soft", random_state=0),
     VLADEncoder(4, random_state=0)],
    ids=["bags of words", "soft VLAD", "VLAD"],
)  # fmt: skip
def test_other_encoders(native, arrays, words, n_numbers, monkeypatch):
    words = words.fit(arrays)
    expected = words.transform(Bags.from_list(arrays))
    monkeypatch.setattr(codebook, "CACHED_NUMBERS", n_numbers)
    np.testing.assert_array_equal(words.transform(arrays), expected)
    mixed = [columns_first(array) if i % 2 else array for i, array in enumerate(arrays)]
    np.testing.assert_array_equal(words.transform(mixed), expected)


def test_float64_among_float32(encoder, arrays):
    arrays[2] = arrays[2].astype(np.float64)
    found = encoder.transform(arrays)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, encoder.transform(Bags.from_list(arrays)))


def test_the_array_code_is_given_stacked_arrays(encoder, arrays, array_code):
    bags = Bags.from_list(arrays)
    np.testing.assert_array_equal(
        array_code(encoder.transform, arrays), array_code(encoder.transform, bags)
    )


def test_other_processes_are_given_an_array(encoder, arrays, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 500)
    expected = encoder.transform(Bags.from_list(arrays))
    with joblib.parallel_config("loky", n_jobs=2):
        np.testing.assert_array_equal(encoder.transform(arrays), expected)


def test_long_bags_among_short_ones(encoder, arrays, monkeypatch):
    monkeypatch.setattr(encode, "LONG_BAG", 200)
    expected = encoder.transform(Bags.from_list(arrays))
    np.testing.assert_array_equal(encoder.transform(arrays), expected)


@pytest.mark.parametrize("form", READ_IN_PLACE)
def test_addresses_are_those_of_the_rows(arrays, form):
    arrays = [form(array) for array in arrays]
    scattered = stacked(arrays).scattered()
    assert scattered.strides == arrays[0].strides
    rows = np.arange(sum(LENGTHS))
    expected = [row.__array_interface__["data"][0] for array in arrays for row in array]
    np.testing.assert_array_equal(scattered.addresses(rows), expected)
    np.testing.assert_array_equal(scattered[100:900], np.concatenate(arrays)[100:900])


def test_arrays_of_several_strides_are_stacked(arrays):
    assert stacked(arrays).scattered() is not None
    assert stacked([*arrays, part_of_wider(arrays[0])]).scattered() is None
    assert stacked([columns_first(array) for array in arrays]).scattered() is None


def test_nothing_is_copied(encoder, rng):
    arrays = [np.zeros((20_000, D), dtype=np.float32) for _ in range(10)]
    encodings = encoder.transform(arrays)
    assert peak_memory(lambda: encoder.transform(arrays)) - encodings.nbytes < arrays[0].nbytes


def test_what_is_wrong_is_named(encoder, arrays):
    with pytest.raises(ValueError, match=r"X holds 0 sample\(s\)"):
        encoder.transform([])
    with pytest.raises(ValueError, match=r"X\[1\] is empty"):
        encoder.transform([arrays[0], arrays[0][:0], arrays[1]])
    arrays[3][650, 2] = np.nan
    with pytest.raises(ValueError, match=r"X\[3\] contains NaN in descriptor 650"):
        encoder.transform(arrays)
