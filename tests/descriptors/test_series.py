"""Windows."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfisher import Bags, Windows


@parametrize_with_checks([Windows(1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_windows_agree_with_a_plain_loop(rng, dtype):
    series = [(9 * rng.normal(size=(n, 3))).astype(dtype) for n in (5, 12, 4)]
    expected = [
        [of_series[t : t + 4].ravel() for t in range(0, len(of_series) - 3, 3)]
        for of_series in series
    ]
    for form in (series, Bags.from_list(series)):
        bags = Windows(4, step=3).fit_transform(form)
        assert bags.dtype == dtype
        for bag, windows in zip(bags, expected, strict=True):
            assert_array_equal(bag, windows)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames_name_their_sensors(rng, frame):
    series = [frame({"hand": rng.normal(size=n), "foot": rng.normal(size=n)}) for n in (5, 9)]
    windows = Windows(2).fit(series)
    names = ["hand_t0", "foot_t0", "hand_t1", "foot_t1"]
    assert windows.get_feature_names_out().tolist() == names
    assert_array_equal(windows.transform(series)[0][1], series[0].to_numpy()[1:3].ravel())
    with pytest.raises(ValueError, match="feature names should match"):
        windows.transform([of_series[["foot", "hand"]] for of_series in series])


def test_files_of_data_frames(rng, tmp_path):
    paths = [tmp_path / f"{i}.csv" for i in range(3)]
    series = [pd.DataFrame(rng.normal(size=(n, 2)), columns=["a", "b"]) for n in (5, 7, 9)]
    for path, of_series in zip(paths, series, strict=True):
        of_series.to_csv(path, index=False)
    windows = Windows(2, reader=pd.read_csv)
    np.testing.assert_allclose(
        windows.fit_transform(paths).values, windows.fit_transform(series).values, rtol=1e-12
    )
    assert windows.feature_names_in_.tolist() == ["a", "b"]


def test_series_that_are_too_short_are_named(rng, tmp_path):
    series = [rng.normal(size=(n, 2)) for n in (5, 3)]
    with pytest.raises(ValueError, match=r"X\[1\] has 3 steps, fewer than a window of 4"):
        Windows(4).fit(series)
    with pytest.raises(ValueError, match=r"write \[X\] for a single series"):
        Windows(4).fit(series[0])
    paths = [str(tmp_path / f"{i}.npy") for i in range(2)]
    for path, of_series in zip(paths, series, strict=True):
        np.save(path, of_series)
    with pytest.raises(ValueError, match=r"1\.npy has 3 steps"):
        Windows(4).fit(paths)


def test_series_unlike_those_of_fit_are_refused(rng):
    windows = Windows(2).fit([rng.normal(size=(5, 2))])
    with pytest.raises(ValueError, match="expecting 2 features"):
        windows.transform([rng.normal(size=(5, 3))])
    with pytest.raises(ValueError, match=r"X\[1\] contains NaN in descriptor 2"):
        windows.transform([np.ones((3, 2)), np.array([[1, 1], [1, 1], [1, np.nan]])])


def test_tensors_come_back_as_tensors(rng):
    torch = pytest.importorskip("torch")
    series = [torch.from_numpy(rng.normal(size=(n, 2))) for n in (5, 9)]
    assert Windows(2).fit_transform(series).of_tensors
