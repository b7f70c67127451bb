"""Descriptors on disk, streams of bags, and fits that are stopped and taken up again."""

from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import IncrementalPCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_info

import skfisher.codebooks.em
import skfisher.codebooks.moments
from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    PositionAppender,
    PowerL2Normalizer,
)
from skfisher._compat import CallbackSupportMixin, NullCallbackSupportMixin
from tests.memory import MIB, memory_below

PER_THREAD = 64 * MIB

needs_callbacks = pytest.mark.skipif(
    CallbackSupportMixin is NullCallbackSupportMixin, reason="needs scikit-learn >= 1.9"
)
few_iterations = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@contextmanager
def on_disk(folder, dtype, n_bytes, d=64):
    """Write descriptors in bags of about 2000, the block below repeated, and open them."""
    rng = np.random.default_rng(0)
    block = rng.normal(size=(2**15, d)) + 4 * (rng.integers(3, size=2**15) == 0)[:, None]
    block = (20 * block + 100).clip(0, 255).astype(dtype)
    n = n_bytes // block.nbytes * len(block)
    cuts = np.sort(rng.choice(np.arange(1, n), n // 2000 - 1, replace=False))
    values = np.lib.format.open_memmap(folder / "values.npy", "w+", block.dtype, (n, d))
    for first in range(0, n, len(block)):
        values[first : first + len(block)] = block
    del values
    np.save(folder / "lengths.npy", np.diff(cuts, prepend=0, append=n))
    yield Bags.load(folder)
    (folder / "values.npy").unlink()


@pytest.fixture(scope="module", params=["float32", "float16", "uint8"])
def mapped(request, tmp_path_factory):
    with on_disk(tmp_path_factory.mktemp("mapped"), request.param, 160 * MIB) as bags:
        yield bags


@pytest.fixture(scope="module")
def mapped_bytes(tmp_path_factory):
    """Return 64 MiB of uint8 that would be 256 MiB of float32."""
    with on_disk(tmp_path_factory.mktemp("bytes"), "uint8", 64 * MIB) as bags:
        yield bags


@few_iterations
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_fit_and_transform_take_bounded_memory(mapped, n_jobs):
    encoder = FisherVectorEncoder(4, max_iter=1, random_state=0, n_jobs=n_jobs)
    with memory_below(n_jobs * PER_THREAD):
        encoder.fit(mapped)
    output = len(mapped) * (2 * 64 + 1) * 4 * 4
    with memory_below(output + n_jobs * PER_THREAD):
        encodings = encoder.transform(mapped)
    assert encodings.nbytes == output
    assert encodings.dtype == np.float32
    some = mapped[[0, len(mapped) // 2, -1]]
    in_memory = [np.array(bag, dtype=np.float32) for bag in some]
    np.testing.assert_allclose(
        encodings[[0, len(mapped) // 2, -1]], encoder.transform(in_memory), rtol=1e-4, atol=1e-5
    )


@few_iterations
def test_a_mapped_fit_is_that_of_the_same_bags_in_memory(mapped):
    some = mapped[:40]
    in_memory = Bags.from_list([np.array(bag) for bag in some])
    encoder = FisherVectorEncoder(3, random_state=0, max_iter=3)
    found, expected = encoder.fit_transform(some), clone(encoder).fit_transform(in_memory)
    np.testing.assert_array_equal(found, expected)


@few_iterations
@pytest.mark.parametrize(
    "estimator",
    [
        DiagonalGaussianMixture(4, max_iter=1, batch_size=500, random_state=0),
        DiagonalGaussianMixture(4, max_iter=1, max_descriptors=10_000, random_state=0),
        DescriptorTransformer(IncrementalPCA(8), max_descriptors=None, incremental=True),
        PositionAppender(),
    ],
    ids=["batches", "subsample", "IncrementalPCA", "positions"],
)
def test_others_fit_in_bounded_memory(mapped_bytes, estimator):
    with memory_below(PER_THREAD):
        clone(estimator).fit(mapped_bytes)


@few_iterations
def test_online_training_and_scores_take_bounded_memory(mapped_bytes):
    mixture = DiagonalGaussianMixture(4, random_state=0)
    with memory_below(PER_THREAD):
        for first in range(0, len(mapped_bytes), 400):
            mixture.partial_fit(mapped_bytes[first : first + 400])
    n = mapped_bytes.n_descriptors
    with memory_below(4 * n * (4 + 1) + PER_THREAD):  # posteriors and densities
        assert mixture.predict_proba(mapped_bytes).shape == (n, 4)


@few_iterations
def test_a_shuffled_subset_is_read_in_bounded_memory(mapped_bytes):
    order = np.random.default_rng(0).permutation(len(mapped_bytes))[: len(mapped_bytes) // 2]
    encoder = FisherVectorEncoder(4, max_iter=1, random_state=0)
    with memory_below(PER_THREAD):
        encodings = encoder.fit_transform(mapped_bytes[order])
    # a bag's encoding depends on that bag alone
    alone = encoder.transform(mapped_bytes[order[:3]])
    np.testing.assert_allclose(encodings[:3], alone, rtol=1e-5, atol=1e-6)


def test_transformed_descriptors_take_the_memory_of_the_result(mapped_bytes):
    scale = DescriptorTransformer(IncrementalPCA(8)).fit(mapped_bytes[:50])
    with memory_below(mapped_bytes.n_descriptors * 8 * 4 + PER_THREAD):
        assert scale.transform(mapped_bytes).n_features == 8


# streams


def stream(n_batches, seed):
    """Bags of three overlapping clusters, a batch at a time."""
    rng = np.random.default_rng(seed)
    centers = np.array([[0.0, 0], [3, 0], [0, 4]])
    for _ in range(n_batches):
        lengths = rng.integers(5, 60, size=16)
        cluster = rng.choice(3, p=[0.5, 0.3, 0.2], size=lengths.sum())
        x = centers[cluster] + rng.normal(size=(len(cluster), 2)) * [1, 0.5]
        yield Bags.from_lengths(x, lengths)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++"])
def test_one_pass_over_a_stream_comes_close_to_exact_em(init_params):
    # Cappé and Moulines (2009), theorem 1: online EM converges to where exact EM does
    batches = list(stream(250, seed=0))
    everything = Bags.concatenate(batches)
    exact = DiagonalGaussianMixture(3, random_state=0, tol=1e-6, max_iter=500).fit(everything)
    online = DiagonalGaussianMixture(3, random_state=0, init_params=init_params)
    for batch in batches:
        online.partial_fit(batch)
    held_out = Bags.concatenate(list(stream(50, seed=1)))
    assert online.n_iter_ == 250
    assert abs(online.score(held_out) - exact.score(held_out)) < 1e-2
    assert online.score(everything) > exact.score(everything) - 1e-2


def test_epochs_over_batches_come_close_to_exact_em():
    everything = Bags.concatenate(list(stream(100, seed=0)))
    exact = DiagonalGaussianMixture(3, random_state=0, tol=1e-6, max_iter=500).fit(everything)
    batched = DiagonalGaussianMixture(3, random_state=0, batch_size=100, max_iter=30, tol=1e-3)
    assert batched.fit(everything).score(everything) > exact.score(everything) - 1e-2


def test_a_pipeline_of_streams():
    encoder = FisherVectorEncoder(3, random_state=0)
    for batch in stream(50, seed=0):
        encoder.partial_fit(batch)
    assert encoder.transform(next(stream(1, seed=1))).shape == (16, 3 * 5)


# interrupted, stopped, taken up again


@pytest.fixture
def bags():
    return Bags.concatenate(list(stream(20, seed=2)))


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def interrupt_at(monkeypatch, name, call):
    """Raise KeyboardInterrupt at a call, counted from 1, of a function of EM."""
    function, calls = getattr(skfisher.codebooks.em, name), []

    def interrupted(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    monkeypatch.setattr(skfisher.codebooks.em, name, interrupted)


# in the middle of an iteration, in its last step, in the inner loop over descriptors
@few_iterations
@pytest.mark.parametrize(
    ("name", "call"), [("expectation", 4), ("maximization", 4), ("total_statistics", 7)]
)
def test_an_interrupted_fit_holds_the_last_finished_iteration(monkeypatch, bags, name, call):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", bags.n_descriptors // 2 + 1)
    threads = blas_threads()
    encoder = FisherVectorEncoder(8, random_state=0, max_iter=20)
    with monkeypatch.context() as patch:
        interrupt_at(patch, name, call)
        with pytest.raises(KeyboardInterrupt):
            encoder.fit(bags)
    assert encoder.n_iter_ == len(encoder.lower_bounds_) == 3
    assert encoder.lower_bound_ == encoder.lower_bounds_[-1]
    assert not encoder.converged_
    expected = clone(encoder).set_params(max_iter=3).fit(bags)
    np.testing.assert_array_equal(encoder.transform(bags), expected.transform(bags))
    assert list(encoder.get_feature_names_out()) == list(expected.get_feature_names_out())
    assert blas_threads() == threads


@few_iterations
def test_an_interrupted_fit_can_be_taken_up(monkeypatch, bags):
    mixture = DiagonalGaussianMixture(3, random_state=0, tol=0, max_iter=10, warm_start=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "expectation", 5)
        with pytest.raises(KeyboardInterrupt):
            mixture.fit(bags)
    mixture.set_params(max_iter=6).fit(bags)
    whole = clone(mixture).set_params(max_iter=10).fit(bags)
    np.testing.assert_allclose(mixture.means_, whole.means_, rtol=1e-12)


def test_an_interrupt_before_the_first_mixture_leaves_the_previous_fit(monkeypatch, bags):
    mixture = DiagonalGaussianMixture(3, random_state=0).fit(bags)
    before = mixture.predict_proba(bags)

    def interrupted(x, origin):
        raise KeyboardInterrupt

    monkeypatch.setattr(skfisher.codebooks.moments, "moment_sums", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mixture.fit(bags[:10])
    np.testing.assert_array_equal(mixture.predict_proba(bags), before)


def test_an_interrupted_batch_of_a_stream_is_as_if_not_seen(monkeypatch):
    first, second, third = stream(3, seed=0)
    encoder = FisherVectorEncoder(3, random_state=0).partial_fit(first)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "maximization", 1)
        with pytest.raises(KeyboardInterrupt):
            encoder.partial_fit(second)
    expected = FisherVectorEncoder(3, random_state=0).partial_fit(first).partial_fit(third)
    np.testing.assert_array_equal(encoder.partial_fit(third).means_, expected.means_)
    assert encoder.n_iter_ == expected.n_iter_ == 2


@few_iterations
def test_warm_start_continues(bags):
    whole = DiagonalGaussianMixture(3, random_state=0, tol=0, max_iter=9).fit(bags)
    parts = DiagonalGaussianMixture(3, random_state=0, tol=0, max_iter=4, warm_start=True).fit(bags)
    bounds = parts.lower_bounds_
    parts.set_params(max_iter=5).fit(bags)
    np.testing.assert_allclose(bounds + parts.lower_bounds_, whole.lower_bounds_, rtol=1e-12)
    np.testing.assert_allclose(parts.variances_, whole.variances_, rtol=1e-12)


@few_iterations
def test_warm_start_begins_anew_where_the_shape_is_another(bags):
    warm = DiagonalGaussianMixture(3, random_state=0, warm_start=True).fit(bags)
    warm.set_params(n_components=2).fit(bags)
    cold = DiagonalGaussianMixture(2, random_state=0).fit(bags)
    np.testing.assert_array_equal(warm.means_, cold.means_)


def test_without_warm_start_a_second_fit_forgets_the_first(bags):
    mixture = DiagonalGaussianMixture(3, random_state=0).fit(bags)
    once = mixture.means_.copy()
    np.testing.assert_array_equal(mixture.partial_fit(bags[:50]).fit(bags).means_, once)


def test_an_exact_fit_is_refined_online(bags):
    # a batch weighs no more than its share of what was seen, so it moves little
    mixture = DiagonalGaussianMixture(3, random_state=0, tol=1e-6, max_iter=500).fit(bags)
    score = mixture.score(bags)
    mixture.partial_fit(bags[:40])
    assert score - 1e-2 < mixture.score(bags) < score + 1e-6


def test_a_given_mixture_can_be_refined_online(bags):
    # nothing is left of what the encoder saw before it was given the mixture
    mixture = DiagonalGaussianMixture(3, random_state=0).fit(bags)
    used = FisherVectorEncoder(3, random_state=1).partial_fit(bags[:50])
    models = [used, FisherVectorEncoder(3)]
    for model in models:
        model.set_params(mixture=mixture).fit(bags).set_params(mixture=None).partial_fit(bags)
    np.testing.assert_array_equal(models[0].means_, models[1].means_)
    assert (models[0].means_ != mixture.means_).any()


class Counting:
    """A callback that counts iterations, encodes at each, and may stop or interrupt the fit."""

    def __init__(self, stop_after=None, interrupt_after=None):
        self.stop_after = stop_after
        self.interrupt_after = interrupt_after
        self.iterations = 0
        self.tasks = []
        self.bounds = []

    def setup(self, estimator, context):
        self.tasks.append("setup")

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        self.tasks.append(f"end {context.task_name}")
        if context.task_name != "em-iteration":
            return False
        self.iterations += 1
        use = "transform" if hasattr(fitted_estimator, "transform") else "score_samples"
        assert np.isfinite(getattr(fitted_estimator, use)([np.zeros((1, 2))])).all()
        self.bounds.append(estimator.lower_bound_)
        if self.iterations == self.interrupt_after:
            raise KeyboardInterrupt
        return self.iterations == self.stop_after


@needs_callbacks
@few_iterations
@pytest.mark.parametrize(
    "model",
    [
        FisherVectorEncoder(8, random_state=0, max_iter=4),
        DiagonalGaussianMixture(3, random_state=0, max_iter=6, tol=0),
        DiagonalGaussianMixture(3, random_state=0, max_iter=6, tol=0, batch_size=64),
    ],
    ids=["encoder", "mixture", "batches"],
)
def test_callbacks_see_every_iteration(bags, model):
    counting = Counting()
    encoder = clone(model).set_callbacks(counting).fit(bags)
    assert counting.iterations == encoder.n_iter_ == model.max_iter
    assert counting.bounds == encoder.lower_bounds_
    steps = ["begin em-iteration", "end em-iteration"] * model.max_iter
    assert counting.tasks == ["setup", "begin fit", *steps, "end fit", "teardown"]
    plain = clone(encoder).fit(bags)
    np.testing.assert_array_equal(plain.means_, encoder.means_)


@needs_callbacks
@pytest.mark.parametrize("n_iterations", [1, 3])
def test_a_callback_stops_a_fit_in_silence(bags, n_iterations, recwarn):
    encoder = FisherVectorEncoder(8, random_state=0, max_iter=9)
    encoder.set_callbacks(Counting(stop_after=n_iterations)).fit(bags)
    assert encoder.n_iter_ == n_iterations
    assert not encoder.converged_
    assert not [w for w in recwarn if issubclass(w.category, ConvergenceWarning)]
    assert np.isfinite(encoder.transform(bags)).all()


@needs_callbacks
@few_iterations
def test_an_interrupt_from_a_callback_leaves_a_usable_state(bags):
    counting = Counting(interrupt_after=2)
    encoder = FisherVectorEncoder(8, random_state=0, max_iter=9).set_callbacks(counting)
    with pytest.raises(KeyboardInterrupt):
        encoder.fit(bags)
    assert counting.tasks[-1] == "teardown"
    expected = FisherVectorEncoder(8, random_state=0, max_iter=2).fit(bags)
    np.testing.assert_array_equal(encoder.transform(bags), expected.transform(bags))


@needs_callbacks
def test_progress_bar(bags, capsys):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    FisherVectorEncoder(3, random_state=0).set_callbacks(ProgressBar()).fit(bags)
    shown = capsys.readouterr().out
    assert "FisherVectorEncoder - fit" in shown
    assert "100%" in shown


@needs_callbacks
def test_progress_bar_of_a_search(bags, capsys):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    model = make_pipeline(
        FisherVectorEncoder(2, random_state=0), PowerL2Normalizer(), LinearSVC(random_state=0)
    )
    search = GridSearchCV(model, {"linearsvc__C": [0.1, 1]}, cv=2)
    search.set_callbacks(ProgressBar()).fit(bags, np.arange(len(bags)) % 2)
    assert "GridSearchCV - fit" in capsys.readouterr().out


def test_verbose_prints_a_line_an_iteration(bags, capsys):
    mixture = DiagonalGaussianMixture(3, random_state=0, verbose=1).fit(bags)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == mixture.n_iter_
    assert lines[0].startswith("DiagonalGaussianMixture: iteration 1 of at most 100, mean log-")
    assert lines[-1].endswith(f"{mixture.lower_bound_:.6f}")
