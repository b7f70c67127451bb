"""GradientFeatureKernel against explicit gradients, and in scikit-learn's machinery."""

import itertools
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfisher import DenseHead, GradientFeatureKernel

pytestmark = pytest.mark.filterwarnings(
    "ignore:The network has .* output:UserWarning",
    "ignore::sklearn.exceptions.ConvergenceWarning",
)


def make_head(seed=0, widths=(6, 7, 5, 3), activation="tanh", dtype=np.float64, **params):
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(size=(n_in, n_out)).astype(dtype) for n_in, n_out in itertools.pairwise(widths)
    ]
    biases = [rng.normal(size=n_out).astype(dtype) / 5 for n_out in widths[1:]]
    return DenseHead(weights, biases, activation=activation, **params)


def trainable(kind=MLPClassifier, **params):
    params = {"hidden_layer_sizes": (8, 8), "solver": "lbfgs", "max_iter": 20, **params}
    return kind(random_state=0, **params)


@parametrize_with_checks(
    [
        GradientFeatureKernel(trainable()),
        GradientFeatureKernel(
            trainable(), layer=[0, -1], target="jacobian", activations=True, bias=True
        ),
        GradientFeatureKernel(trainable(), target="none", temperature=np.inf, normalize=False),
        GradientFeatureKernel(trainable(MLPRegressor), target="jacobian", layer=0),
        GradientFeatureKernel("precomputed", n_activations=1),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# What the kernel is


def run(head, x):
    """Return the inputs of every layer and the logits of one sample."""
    inputs = [x]
    for k, (weight, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
        y = inputs[-1] @ weight + bias
        inputs.append(np.tanh(y) if k < head.n_layers - 1 else y)
    return inputs[:-1], inputs[-1]


def logits_with(head, x, layer, weight):
    weights = [w if k != layer else weight for k, w in enumerate(head.weights)]
    return run(DenseHead(weights, head.biases, activation="tanh"), x)[1]


def explicit_jacobian(head, x, layer):
    """Return d logits / d weights[layer] as (P, n_weights) by central differences."""
    weight = np.array(head.weights[layer])
    columns = []
    for index in np.ndindex(weight.shape):
        values = []
        for step in (1e-6, -1e-6):
            moved = weight.copy()
            moved[index] += step
            values.append(logits_with(head, x, layer, moved))
        columns.append((values[0] - values[1]) / 2e-6)
    return np.array(columns).T


def explicit_gradient(head, x, layer, g, temperature):
    p = np.exp(run(head, x)[1] / temperature)
    return (p / p.sum() - g) @ explicit_jacobian(head, x, layer)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("layer", [0, -2, -1])
@pytest.mark.parametrize(
    ("target", "g"),
    [
        ("uniform", 1 / 3),
        ("none", 0),
        (np.array([0.2, 0.5, 0.3]), np.array([0.2, 0.5, 0.3])),
        (lambda logits: np.full_like(logits, 1 / 3), 1 / 3),
    ],
)
def test_kernel_of_one_layer(rng, layer, target, g, normalize):
    head = make_head()
    X, Y = rng.normal(size=(6, 6)), rng.normal(size=(4, 6))
    gradients = [
        np.array([explicit_gradient(head, x, layer % 3, g, 1.5) for x in samples])
        for samples in (X, Y)
    ]
    if normalize:
        gradients = [unit(one) for one in gradients]
    kernel = GradientFeatureKernel(
        head, layer=layer, target=target, temperature=1.5, normalize=normalize
    ).fit(X)
    assert_allclose(kernel.transform(Y), gradients[1] @ gradients[0].T, atol=1e-7)
    assert_allclose(kernel.fit_transform(X), gradients[0] @ gradients[0].T, atol=1e-7)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_jacobian_is_the_tangent_kernel_of_the_layer(rng, layer, normalize):
    # in passes for layer 0, in closed form for layer 1 (the last hidden one) and for layer 2
    head = make_head()
    X, Y = rng.normal(size=(6, 6)), rng.normal(size=(4, 6))
    rows = [
        np.array([explicit_jacobian(head, x, layer).ravel() for x in samples]) for samples in (X, Y)
    ]
    if normalize:
        rows = [unit(one) for one in rows]
    kernel = GradientFeatureKernel(head, layer=layer, target="jacobian", normalize=normalize).fit(X)
    assert_allclose(kernel.transform(Y), rows[1] @ rows[0].T, atol=1e-7)
    assert_allclose(kernel.fit_transform(X), rows[0] @ rows[0].T, atol=1e-7)


def test_sign_combinations_are_unbiased_and_fixed(rng):
    head = make_head(widths=(6, 7, 5, 40))
    X = rng.normal(size=(8, 6))

    def error(max_outputs, seed=0):
        kernel = GradientFeatureKernel(
            head,
            layer=0,
            target="jacobian",
            normalize=False,
            max_outputs=max_outputs,
            random_state=seed,
        )
        result = kernel.fit_transform(X)
        assert_allclose(kernel.transform(X), result)
        assert kernel.cotangents_.shape[1] == min(40, max_outputs)
        return result - exact

    exact = GradientFeatureKernel(head, layer=0, target="jacobian", normalize=False).fit_transform(
        X
    )
    assert (error(40) == 0).all()
    size = np.linalg.norm(exact)
    mean = np.mean([error(4, seed) for seed in range(400)], axis=0)
    assert np.linalg.norm(error(4)) > 0.1 * size  # one draw is off ...
    assert np.linalg.norm(mean) < 0.05 * size  # ... the mean of 400 by a twentieth of that


def test_layers_activations_and_bias_are_means_of_kernels(rng):
    head = make_head()
    X = rng.normal(size=(7, 6))
    inputs, logits = zip(*(run(head, x) for x in X), strict=True)
    forward = [unit(np.array(x)) for x in zip(*inputs, strict=True)] + [unit(np.array(logits))]

    def kernel(**params):
        return GradientFeatureKernel(head, target="uniform", **params).fit_transform(X)

    single = [kernel(layer=k) for k in range(3)]
    assert_allclose(kernel(layer=[0, -2]), (single[0] + single[1]) / 2)
    for k in range(3):  # the layer's own output: x_{k+1}, or the logits
        own = forward[k + 1] @ forward[k + 1].T
        assert_allclose(kernel(layer=k, activations=True), (single[k] + own) / 2)
    with_own = [kernel(layer=k, activations=True) for k in range(2)]
    assert_allclose(kernel(layer=[0, 1], activations=True), sum(with_own) / 2)
    raw = {bias: kernel(layer=1, bias=bias, normalize=False) for bias in (False, True)}
    errors = head.gradient_factors(X, layer=1)[1]
    assert_allclose(raw[True], raw[False] + errors @ errors.T)
    assert_allclose(np.diag(kernel(layer=1, bias=True)), 1)


SETTINGS = st.fixed_dictionaries(
    {
        "layer": st.sampled_from([0, 1, 2, [0, 1], [0, 1, 2]]),
        "target": st.sampled_from(["uniform", "none", "jacobian"]),
        "temperature": st.sampled_from([0.5, 2.0, np.inf]),
        "activations": st.booleans(),
        "bias": st.booleans(),
        "max_outputs": st.sampled_from([1, 64]),
    }
)


@given(settings=SETTINGS, dtype=st.sampled_from([np.float32, np.float64]))
def test_invariants_of_every_setting(settings, dtype):
    X = np.random.default_rng(0).normal(size=(11, 6)).astype(dtype)
    kernel = GradientFeatureKernel(make_head(), **settings)
    K = kernel.fit_transform(X)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    assert K.dtype == dtype
    assert_array_equal(K, K.T)
    assert_allclose(np.diag(K), 1, rtol=rtol)
    assert np.linalg.eigvalsh(K.astype(float)).min() >= -rtol * len(X)
    assert_allclose(kernel.transform(X), K, rtol=0, atol=rtol)
    one_by_one = GradientFeatureKernel(make_head(), batch_size=1, **settings)
    assert_allclose(one_by_one.fit_transform(X), K, rtol=0, atol=rtol)


@pytest.mark.parametrize("target", ["uniform", "jacobian"])
def test_kernel_does_not_depend_on_working_memory(rng, target):
    X = rng.normal(size=(60, 6))
    kernel = GradientFeatureKernel(make_head(), layer=[0, 1], target=target, activations=True)
    expected = kernel.fit(X).transform(X)
    with config_context(working_memory=1e-3):
        assert_allclose(kernel.transform(X), expected, atol=1e-13)
        assert_allclose(kernel.fit_transform(X), expected, atol=1e-13)


def test_float32_fits_and_float64_calls_mix(rng):
    X = rng.normal(size=(9, 6))
    kernel = GradientFeatureKernel(make_head()).fit(X.astype(np.float32))
    assert kernel.factors_[0][0].dtype == np.float32
    assert kernel.transform(X).dtype == np.float64
    kernel.fit(X)
    assert kernel.transform(X.astype(np.float32)).dtype == np.float32


def test_single_logit_is_half_a_sigmoid(rng):
    # after normalisation only the sign of the error is left
    head = make_head(widths=(6, 4, 1), output="logistic")
    X = rng.normal(size=(8, 6))
    K = GradientFeatureKernel(head, layer=-1, target="uniform").fit_transform(X)
    inputs, logits = zip(*(run(head, x) for x in X), strict=True)
    hidden = unit(np.array([x[1] for x in inputs]))
    signs = np.sign(np.array(logits))
    assert_allclose(K, hidden @ hidden.T * (signs @ signs.T), atol=1e-12)


# How the network comes in


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    source = y < 5
    network = MLPClassifier((24, 16), max_iter=60, random_state=0).fit(X[source], y[source])
    return network, X[~source][:300], y[~source][:300]


def test_frozen_network_is_used_as_it_is(digits):
    network, X, y = digits
    kernel = GradientFeatureKernel(FrozenEstimator(network)).fit(X, y)
    assert_array_equal(kernel.head_.weights[0], network.coefs_[0])
    assert not hasattr(kernel, "network_")
    direct = GradientFeatureKernel(DenseHead.from_sklearn(network)).fit(X)
    assert_array_equal(kernel.transform(X), direct.transform(X))


def test_unfrozen_network_is_cloned_and_trained(digits):
    network, X, y = digits
    before = network.coefs_[0].copy()
    with pytest.warns(UserWarning, match=r"classes \[0 1 2 3 4\], and y has \[5 6 7 8 9\].*Frozen"):
        kernel = GradientFeatureKernel(network).fit(X, y)
    assert_array_equal(network.coefs_[0], before)
    assert_array_equal(kernel.network_.classes_, np.unique(y))
    assert_array_equal(kernel.head_.weights[0], clone(network).fit(X, y).coefs_[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GradientFeatureKernel(kernel.network_).fit(X, y)  # the same classes: nothing to say
    assert not [w for w in caught if "is fitted on" in str(w.message)]


def test_nothing_of_an_earlier_fit_remains(digits):
    network, X, y = digits
    kernel = GradientFeatureKernel(clone(network)).fit(X, y)
    assert hasattr(kernel, "network_")
    assert not hasattr(kernel.set_params(network=FrozenEstimator(network)).fit(X), "network_")
    kernel.set_params(network="precomputed", n_activations=3).fit(X)
    assert not [name for name in ("head_", "layers_", "n_outputs_") if hasattr(kernel, name)]


def test_precomputed_factors_give_the_same_kernel(rng):
    head = make_head()
    X = rng.normal(size=(9, 6))
    factors = np.hstack(head.gradient_factors(X, layer=1))
    for params in ({}, {"bias": True}, {"normalize": False}):
        kernel = GradientFeatureKernel("precomputed", n_activations=7, **params).fit(factors)
        expected = GradientFeatureKernel(head, layer=1, target="uniform", **params).fit(X)
        assert_allclose(kernel.transform(factors), expected.transform(X), atol=1e-13)
        assert_allclose(kernel.fit_transform(factors), expected.transform(X), atol=1e-13)


def test_regression_network(rng):
    X, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 2))
    network = trainable(MLPRegressor, activation="tanh").fit(X, y)
    K = GradientFeatureKernel(FrozenEstimator(network), target="none").fit_transform(X)
    assert_allclose(np.diag(K), 1)
    for target in ("uniform", [0.5, 0.5], lambda y: y):
        with pytest.raises(ValueError, match=r"regression network .*'jacobian' or 'none'"):
            GradientFeatureKernel(FrozenEstimator(network), target=target).fit(X)


# In scikit-learn's machinery


def test_pipeline_grid_search_and_pickle(digits):
    network, X, y = digits
    pipe = make_pipeline(GradientFeatureKernel(FrozenEstimator(network)), SVC(kernel="precomputed"))
    grid = {
        "gradientfeaturekernel__layer": [0, 1, [0, 1]],
        "gradientfeaturekernel__temperature": [1, np.inf],
        "gradientfeaturekernel__target": ["uniform", "jacobian"],
        "svc__C": [1, 10],
    }
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise", n_jobs=2).fit(X[:200], y[:200])
    assert search.score(X[200:], y[200:]) > 0.85
    again = pickle.loads(pickle.dumps(search))
    assert_array_equal(
        again.best_estimator_.decision_function(X[200:]), search.decision_function(X[200:])
    )


def test_trained_inside_the_folds(digits):
    _, X, y = digits
    network = MLPClassifier((24, 16), activation="tanh", max_iter=60, random_state=0)
    pipe = make_pipeline(
        GradientFeatureKernel(network, target="jacobian"), SVC(kernel="precomputed", C=10)
    )
    assert cross_val_score(pipe, X, y, cv=3, error_score="raise").mean() > 0.85


def test_multilabel_targets(digits):
    network, X, y = digits
    labels = np.column_stack([y % 2 == 0, y > 6, y == 8]).astype(int)
    pipe = make_pipeline(
        GradientFeatureKernel(FrozenEstimator(network), target="jacobian"),
        OneVsRestClassifier(SVC(kernel="precomputed", C=10)),
    ).fit(X[:200], labels[:200])
    assert pipe.predict(X[200:]).shape == (100, 3)
    assert (pipe.predict(X[200:]) == labels[200:]).mean() > 0.9


@pytest.mark.parametrize("target", ["uniform", "jacobian"])
def test_kernel_of_an_svc(digits, target):
    network, X, y = digits
    kernel = GradientFeatureKernel(FrozenEstimator(network), target=target, layer=0)
    direct = SVC(kernel=kernel, C=10).fit(X[:200], y[:200])
    pipe = make_pipeline(kernel, SVC(kernel="precomputed", C=10)).fit(X[:200], y[:200])
    expected = pipe.decision_function(X[200:])
    assert_allclose(direct.decision_function(X[200:]), expected, atol=1e-9)
    assert_allclose(clone(direct).fit(X[:200], y[:200]).decision_function(X[200:]), expected)


def test_call_is_the_kernel_between_any_samples(rng):
    kernel = GradientFeatureKernel(make_head())
    X, Y = rng.normal(size=(5, 6)), rng.normal(size=(4, 6))
    expected = clone(kernel).fit(Y).transform(X)
    assert_allclose(kernel(X, Y), expected)
    assert not hasattr(kernel, "factors_")  # nothing was fitted on the way
    assert_allclose(kernel(X), kernel(X, X), atol=1e-12)
    assert_allclose(kernel.fit(rng.normal(size=(3, 6)))(X, Y), expected)
    with pytest.raises(NotFittedError):
        GradientFeatureKernel(trainable())(X, Y)


def test_set_output_and_feature_names(rng):
    pandas = pytest.importorskip("pandas")
    X = rng.normal(size=(5, 6))
    kernel = GradientFeatureKernel(make_head()).set_output(transform="pandas")
    frame = kernel.fit_transform(X)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [f"gradientfeaturekernel{i}" for i in range(5)]
    assert list(kernel.transform(X[:2]).columns) == list(kernel.get_feature_names_out())


def test_clone_shares_a_torch_module(rng):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 7), torch.nn.ReLU(inplace=True), torch.nn.Linear(7, 20)
    )
    kernel = GradientFeatureKernel(module, temperature=4.0).set_output(transform="pandas")
    twin = clone(make_pipeline(kernel, SVC()))[0]
    assert twin.network is module
    assert twin.get_params() == kernel.get_params()
    assert twin._sklearn_output_config == kernel._sklearn_output_config
    assert clone(GradientFeatureKernel(FrozenEstimator(module))).network.estimator is module
    X = rng.normal(size=(8, 6)).astype(np.float32)
    K = GradientFeatureKernel(module).fit_transform(X)
    assert_array_equal(K, GradientFeatureKernel(FrozenEstimator(module)).fit_transform(X))
    assert_array_equal(K, GradientFeatureKernel(DenseHead.from_torch(module)).fit_transform(X))
    again = pickle.loads(pickle.dumps(GradientFeatureKernel(module).fit(X)))
    assert_allclose(again.transform(X), K, atol=1e-6)


def test_skops_round_trip(rng):
    skops_io = pytest.importorskip("skops.io")
    X = rng.normal(size=(8, 6))
    kernel = GradientFeatureKernel(make_head(), layer=[0, 1], target="jacobian").fit(X)
    data = skops_io.dumps(kernel)
    again = skops_io.loads(data, trusted=skops_io.get_untrusted_types(data=data))
    assert_array_equal(again.transform(X), kernel.transform(X))
