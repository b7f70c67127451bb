from contextvars import ContextVar

import numpy as np
import pytest
from joblib import parallel_config
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, TransformerMixin
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from skfisher import Bags, DescriptorTransformer
from skfisher.parallel.threads import map_in_order


def blas_threads():
    """Return the threads of the BLAS that NumPy's products run in."""
    return [
        pool["num_threads"]
        for pool in threadpool_info()
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]
    ]


def test_results_come_in_the_order_of_the_arguments():
    arguments = [(i,) for i in range(50)]
    for n_jobs in (None, 1, 2):
        assert list(map_in_order(lambda i: i * i, arguments, n_jobs=n_jobs)) == [
            i * i for i in range(50)
        ]


def test_blas_has_one_thread_inside_and_what_it_had_after():
    before = blas_threads()
    inside = list(map_in_order(lambda _: blas_threads(), [(i,) for i in range(4)], n_jobs=2))
    assert all(n == 1 for threads in inside for n in threads)
    assert blas_threads() == before


OPENMP = ThreadpoolController().select(user_api="openmp").lib_controllers
PLACE = ContextVar("PLACE", default="nowhere")


class Witness(TransformerMixin, BaseEstimator):
    """Return for every descriptor what `transform` sees around itself."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        config = get_config()
        warn = np.geterr()["divide"] == "raise"
        seen = [config["working_memory"], config["assume_finite"], warn, PLACE.get() == "here"]
        seen.append(max(library.get_num_threads() for library in OPENMP))
        return np.tile(np.array(seen, dtype=X.dtype), (len(X), 1))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_see_what_their_caller_sees(n_jobs, backend):
    bags = Bags.from_lengths(np.zeros((2000, 1024)), [500, 700, 800])  # several blocks
    witness = DescriptorTransformer(Witness(), n_jobs=n_jobs).fit(bags)
    token = PLACE.set("here")
    try:
        with (
            config_context(working_memory=64, assume_finite=True),
            np.errstate(divide="raise"),
            threadpool_limits(3, user_api="openmp"),
            parallel_config(backend),
        ):
            seen = witness.transform(bags).values
    finally:
        PLACE.reset(token)
    expected = np.tile([64, 1, 1, 1, 3], (2000, 1))
    if backend == "loky" and n_jobs == 2:
        expected[:, 3] = 0
        expected[:, 4] = seen[:, 4]  # joblib's to say
    np.testing.assert_array_equal(seen, expected)
