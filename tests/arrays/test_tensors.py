"""Tensors of PyTorch: they enter and leave without a copy, and PyTorch is never imported."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import (
    Bags,
    DenseHead,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GradientFeatureKernel,
    GradientFeatureMap,
    JointFisherSVC,
    LinearSDCA,
    PositionAppender,
    PowerL2Normalizer,
)
from skfisher.arrays.tensors import as_array, as_tensor, is_tensor

torch = pytest.importorskip("torch")
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
LABELS = np.arange(12) % 2
BAGS = [RNG.normal(size=(5 + 3 * i, 4)).astype(np.float32) + LABELS[i] for i in range(12)]
CUBE = RNG.normal(size=(12, 6, 4))
TABLE = RNG.normal(size=(12, 6)).astype(np.float32)
HEAD = DenseHead([RNG.normal(size=(6, 7)), RNG.normal(size=(7, 20))])
JOINT = JointFisherSVC(2, max_iter=2, batch_size=12, random_state=0)
ENCODER = FisherVectorEncoder(2, max_iter=3, random_state=0)
MIXTURE = DiagonalGaussianMixture(2, max_iter=3, tol=0, random_state=0)


def tensors(samples):
    """Return samples with tensors, of the same memory, in the place of arrays."""
    if isinstance(samples, list):
        return [torch.from_numpy(bag) for bag in samples]
    if isinstance(samples, Bags):
        return Bags(torch.from_numpy(samples.values), samples.starts, samples.stops)
    return torch.from_numpy(samples)


SAMPLES = {"list": BAGS, "cube": CUBE, "Bags": Bags.from_list(BAGS), "rows": TABLE}


@quiet
@pytest.mark.parametrize("form", SAMPLES)
@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        (ENCODER, "transform"),
        (MIXTURE, "predict_proba"),
        (MIXTURE, "score_samples"),
        (MIXTURE, "predict"),
        (JOINT, "decision_function"),
        (JOINT, "transform"),
    ],
)
def test_bags_of_tensors_give_tensors(estimator, method, form):
    samples = SAMPLES[form]
    expected = getattr(clone(estimator).fit(samples, LABELS), method)(samples)
    given = tensors(samples)
    fitted = clone(estimator).fit(given, torch.from_numpy(LABELS))
    result = getattr(fitted, method)(given)
    assert is_tensor(result)
    assert result.device.type == "cpu"
    assert_array_equal(result.numpy(), expected)
    assert not any(is_tensor(value) for value in vars(fitted).values())
    assert isinstance(getattr(fitted, method)(samples), np.ndarray)


@quiet
def test_scalars_and_labels_stay_what_they_are():
    given = tensors(BAGS)
    mixture = clone(MIXTURE).fit(given)
    for method in ("score", "bic", "aic"):
        assert isinstance(getattr(mixture, method)(given), float)
    for labels in (LABELS, np.array(["a", "b"])[LABELS]):
        predicted = clone(JOINT).fit(given, labels).predict(given)
        assert isinstance(predicted, np.ndarray)
        assert set(predicted) <= set(labels)


@pytest.mark.parametrize(
    "estimator",
    [
        PowerL2Normalizer(),
        PowerL2Normalizer(0.3, blocks=2),
        GradientFeatureKernel(HEAD),
        GradientFeatureMap(HEAD, n_components=9),
    ],
    ids=str,
)
def test_tables(estimator):
    expected = clone(estimator).fit(TABLE).transform(TABLE)
    given = tensors(TABLE)
    for result in (
        clone(estimator).fit(given).transform(given),
        clone(estimator).fit_transform(given),
    ):
        assert is_tensor(result)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)


@quiet
def test_data_frames_of_tensors():
    pytest.importorskip("pandas")
    for estimator, samples in (
        (ENCODER, BAGS),
        (PowerL2Normalizer(), TABLE),
        (DescriptorTransformer(PCA(2)), TABLE),
    ):
        frames = [
            clone(estimator).set_output(transform="pandas").fit(x).transform(x)
            for x in (tensors(samples), samples)
        ]
        assert_array_equal(*(frame.to_numpy() for frame in frames))
        assert list(frames[0].columns) == list(frames[1].columns)
    bags = clone(DescriptorTransformer(PCA(2))).set_output(transform="pandas").fit(BAGS)
    assert bags.transform(tensors(BAGS)).of_tensors  # no frame holds bags


@quiet
def test_object_arrays_of_tensors_are_lists():
    given = np.empty(len(BAGS), dtype=object)
    for i, bag in enumerate(tensors(BAGS)):
        given[i] = bag
    encoder = clone(ENCODER).fit(given)
    result = encoder.transform(given)
    assert is_tensor(result)
    assert_array_equal(result.numpy(), encoder.transform(BAGS))


def test_calls_of_kernels():
    kernel = GradientFeatureKernel(HEAD)
    result = kernel(tensors(TABLE), tensors(TABLE[:5]))
    assert is_tensor(result)
    assert_array_equal(result.numpy(), kernel(TABLE, TABLE[:5]))


@quiet
@pytest.mark.parametrize("transformer", [DescriptorTransformer(PCA(2)), PositionAppender()])
def test_transformers_of_descriptors(transformer):
    given = tensors(BAGS)
    result = clone(transformer).fit(given).transform(given)
    expected = clone(transformer).fit(BAGS).transform(BAGS)
    assert isinstance(result, Bags)
    assert result.of_tensors
    assert_array_equal(result.values, expected.values)
    rows = clone(transformer).fit_transform(tensors(TABLE))
    assert is_tensor(rows)
    assert_array_equal(rows.numpy(), clone(transformer).fit_transform(TABLE))
    # and on through a pipeline
    pipeline = make_pipeline(clone(transformer), clone(ENCODER))
    assert is_tensor(pipeline.fit(given).transform(given))


def test_memory_is_shared_both_ways():
    tensor = torch.ones(5, 2)
    bags = Bags.from_lengths(tensor, [2, 3])
    assert bags.values.__array_interface__["data"][0] == tensor.data_ptr()
    again = as_tensor(bags.values)
    assert again.data_ptr() == tensor.data_ptr()
    assert again.dtype == torch.float32


def test_what_is_made_of_bags_of_tensors_is_too():
    bags = Bags.from_list(tensors(BAGS))
    assert bags.of_tensors
    assert not Bags.from_list(BAGS).of_tensors
    subset = bags[[3, 1]]
    joined = Bags.concatenate([subset, bags[:1]])
    views = [subset, bags[2:], bags.take([0]), subset.pack(), joined]
    views += [pickle.loads(pickle.dumps(b)) for b in (bags, subset)]
    assert all(view.of_tensors for view in views)
    assert isinstance(bags[0], np.ndarray)


def test_bags_made_of_other_forms_remember_that_they_were_tensors():
    values = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    bags, _ = Bags.from_groups(values.flatten(0, 1), [0, 0, 1, 1, 1, 0])
    made = [bags, Bags.from_padded(values, [3, 1]), Bags.from_padded(values, mask=mask)]
    assert [bags.of_tensors for bags in made] == [True] * 3
    assert made[2].lengths.tolist() == [2, 2]


def test_gradients_and_views_of_tensors():
    tensor = torch.ones(4, 3, requires_grad=True)
    assert_array_equal(as_array(tensor), np.ones((4, 3)))
    wide = torch.arange(24.0).reshape(4, 6)
    assert_array_equal(as_array(wide[:, ::2]), wide.numpy()[:, ::2])
    assert_array_equal(as_array(torch._neg_view(wide)), -wide.numpy())
    assert_array_equal(as_array(torch.tensor([[True]])), [[True]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: x.to_sparse(), TypeError, r"X\[1\] is sparse.*write X\[1\].to_dense\(\)"),
        (lambda x: x.bfloat16(), TypeError, r"X\[1\] has dtype bfloat16: write X\[1\].float\(\)"),
        (lambda x: x.to("meta"), TypeError, r"X\[1\] is on meta: move it to the CPU or to a CUDA"),
        (lambda x: x * 1j, ValueError, r"Complex data not supported: X\[1\]"),
        (lambda x: x * np.nan, ValueError, r"X\[1\] contains NaN in descriptor 0"),
        (lambda x: x[0], ValueError, r"X\[1\] has shape \(4,\), but a bag is a two-dimens"),
        (lambda x: x[:, :3], ValueError, r"X\[1\] has 3 features per descriptor, but X\[0\] has 4"),
        (lambda x: x[:0], ValueError, r"X\[1\] is empty"),
    ],
)
def test_bad_tensors_are_named(make, error, message):
    given = tensors(BAGS)
    given[1] = make(given[1])
    with pytest.raises(error, match=message):
        FisherVectorEncoder(2).fit(given)


def test_a_gpu_that_cupy_cannot_use(monkeypatch):
    monkeypatch.setattr("skfisher.arrays.tensors.cuda_usable", lambda: (0, "Why."))

    class OnGpu:
        device, layout, dtype = torch.device("cuda:1"), torch.strided, torch.float32
        detach = resolve_conj = resolve_neg = lambda self: self

    with pytest.raises(
        ValueError, match=r"X is on cuda:1, which needs CuPy and a visible GPU; Why"
    ):
        as_array(OnGpu())


def test_a_classifier_of_tensors():
    given = tensors(TABLE)
    classifier = LinearSDCA().fit(given, torch.from_numpy(LABELS))
    assert is_tensor(classifier.decision_function(given))
    expected = LinearSDCA().fit(TABLE, LABELS).predict(TABLE)
    assert_array_equal(classifier.predict(given), expected)


@quiet
def test_searches_and_pipelines_take_them():
    pipeline = make_pipeline(clone(ENCODER), PowerL2Normalizer(), LinearSVC())
    bags = Bags.from_list(tensors(BAGS))
    expected = cross_val_score(pipeline, Bags.from_list(BAGS), LABELS, cv=2)
    assert_array_equal(cross_val_score(pipeline, bags, LABELS, cv=2), expected)


@quiet
def test_mixed_lists_are_read():
    mixed = [torch.from_numpy(BAGS[0]), *BAGS[1:]]
    result = clone(ENCODER).fit(mixed).transform(mixed)
    assert is_tensor(result)
    assert_array_equal(result.numpy(), clone(ENCODER).fit(BAGS).transform(BAGS))
