"""Reading networks: scikit-learn's, PyTorch's, plain arrays."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

from skfisher import DenseHead
from skfisher.gradient_features.dense_head import layer_indices, pretrained_head
from skfisher.ops.dense_network import forward


def logits_of(head, X):
    return forward(X, *head.arrays(like=X))[1]


def mlp(kind, X, y, **params):
    params = {"hidden_layer_sizes": (7, 5), "max_iter": 30, "solver": "lbfgs", **params}
    return kind(random_state=0, **params).fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_head_of_a_classifier_gives_its_probabilities(rng, activation):
    X, y = rng.normal(size=(60, 4)), rng.integers(3, size=60)
    network = mlp(MLPClassifier, X, y, activation=activation)
    head = DenseHead.from_sklearn(network)
    exp = np.exp(logits_of(head, X))
    assert_allclose(exp / exp.sum(axis=1, keepdims=True), network.predict_proba(X), rtol=1e-9)
    assert (head.output, head.n_outputs, head.n_features_in, head.n_layers) == ("softmax", 3, 4, 3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_heads_of_binary_multilabel_and_regression_networks(rng):
    X = rng.normal(size=(60, 4))
    labels = rng.integers(2, size=(60, 3))
    binary = DenseHead.from_sklearn(mlp(MLPClassifier, X, labels[:, 0]))
    assert (binary.output, binary.n_outputs) == ("logistic", 1)
    network = mlp(MLPClassifier, X, labels)
    multilabel = DenseHead.from_sklearn(network)
    assert (multilabel.output, multilabel.n_outputs) == ("logistic", 3)
    assert_allclose(1 / (1 + np.exp(-logits_of(multilabel, X))), network.predict_proba(X))
    network = mlp(MLPRegressor, X, X[:, :2])
    regression = DenseHead.from_sklearn(network)
    assert (regression.output, regression.n_outputs) == ("identity", 2)
    assert_allclose(logits_of(regression, X), network.predict(X))


def test_unfitted_network_is_named():
    with pytest.raises(NotFittedError, match="MLPClassifier instance is not fitted"):
        DenseHead.from_sklearn(MLPClassifier())
    with pytest.raises(NotFittedError, match="MLPClassifier instance is not fitted"):
        pretrained_head(FrozenEstimator(MLPClassifier()))


def test_other_estimators_are_refused():
    for network in (LogisticRegression(), FrozenEstimator(LogisticRegression())):
        with pytest.raises(TypeError, match=r"must be an MLPClassifier.*got LogisticRegression"):
            pretrained_head(network)
    with pytest.raises(TypeError, match="got int"):
        pretrained_head(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": []}, "at least one weight matrix"),
        ({"weights": [np.ones((3, 2)), np.ones((4, 2))]}, r"weights\[0\] has 2.*takes 4"),
        ({"weights": [np.ones(3)]}, r"weights\[0\] must have 2 dimensions, got shape \(3,\)"),
        ({"weights": [np.full((2, 2), np.nan)]}, "real and finite"),
        ({"weights": [np.ones((2, 2)) + 1j]}, "real and finite.*complex128"),
        ({"weights": [np.ones((2, 3))], "biases": [np.ones(2)]}, r"lengths \[2\].*\[3\] outputs"),
        ({"weights": [np.ones((2, 3))], "activation": "gelu"}, "activation='gelu' is not known"),
        ({"weights": [np.ones((2, 3))], "output": "probit"}, "output='probit' is not known"),
        ({"weights": [np.ones((2, 3))], "activation": ["relu"]}, "1 activations for 0 hidden"),
        ({"weights": [np.ones((2, 3))], "activation": None}, "activation=None is not known"),
    ],
)
def test_bad_arrays_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DenseHead(**arguments)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layer": 2}, r"layer=2, but the network has 2 .*\(indices -2 to 1\)"),
        ({"temperature": 0}, "temperature=0 must be positive"),
        ({"temperature": np.nan}, "temperature=nan must be positive"),
        ({"target": "jacobian"}, "target='jacobian' is not known"),
        ({"target": [0.5, 0.5]}, r"must have shape \(4,\)"),
        ({"target": [0.5] * 4}, "must sum to 1"),
        ({"X": np.ones((2, 5))}, r"X has shape \(2, 5\), but .* \(n_samples, 3\)"),
        ({"X": np.ones(3)}, r"X has shape \(3,\)"),
        ({"X": np.array([[1, 1, 1], [1, np.nan, 1]])}, r"for X\[1\] is not finite"),
    ],
)
def test_bad_requests_for_factors_are_refused(params, message):
    head = DenseHead([np.ones((3, 2)), np.ones((2, 4))])
    with pytest.raises(ValueError, match=message):
        head.gradient_factors(**{"X": np.ones((2, 3)), **params})


def test_factors_of_integers_and_lists():
    head = DenseHead([np.ones((3, 2)), np.eye(2, 4)])
    expected = head.gradient_factors(np.eye(3))
    for X in (np.eye(3, dtype=int), np.eye(3).tolist()):
        for factor, other in zip(head.gradient_factors(X), expected, strict=True):
            assert_array_equal(factor, other)


def test_head_is_immutable_and_shared_by_copies(rng):
    weights = [rng.normal(size=(3, 2))]
    head = DenseHead(weights)
    with pytest.raises(ValueError, match="read-only"):
        head.weights[0][0, 0] = 1
    before = head.weights[0].copy()
    weights[0][:] = 0  # training goes on
    assert_array_equal(head.weights[0], before)
    assert copy.deepcopy(head) is head


def test_head_survives_pickling(rng):
    head = DenseHead(
        [rng.normal(size=(3, 2)), rng.normal(size=(2, 4))], activation=["tanh"], output="logistic"
    )
    again = pickle.loads(pickle.dumps(head))
    X = rng.normal(size=(5, 3))
    assert_array_equal(logits_of(again, X), logits_of(head, X))
    assert not any(array.flags.writeable for array in (*again.weights, *again.biases))
    assert (
        repr(again) == repr(head) == "DenseHead(3 -> 2 -> 4, activation='tanh', output='logistic')"
    )


def test_layer_indices():
    assert layer_indices(-2, 3) == [1]
    assert layer_indices([0, -1], 3) == [0, 2]
    with pytest.raises(
        ValueError, match=r"layer=5, but the network has 3 weight matrices \(ind.* -3 to 2"
    ):
        layer_indices(5, 3)
    with pytest.raises(ValueError, match=r"1 weight matrix \(indices -1 to 0\)"):
        layer_indices(-2, 1)
    for layers in ([1, -2], []):
        with pytest.raises(ValueError, match="at least one layer, and none twice"):
            layer_indices(layers, 3)


# PyTorch


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch


@pytest.fixture
def alexnet_like(torch):
    """Return a head as torchvision writes them: dropout, in-place rectifiers, a flat input."""
    nn = torch.nn
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(12, 10),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(10, 8),
        nn.ReLU(inplace=True),
        nn.Linear(8, 5),
    )


def autograd_gradients(torch, module, X, temperature=2.0):
    """Return the gradients of every Linear layer, one sample after the other."""
    module.eval()
    linears = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    rows = [[] for _ in linears]
    for x in torch.tensor(X):
        log_p = torch.log_softmax(module(x) / temperature, dim=0)
        grads = torch.autograd.grad(-temperature * log_p.mean(), [part.weight for part in linears])
        for row, gradient in zip(rows, grads, strict=True):
            row.append(gradient.numpy().T)
    return [np.array(row) for row in rows]


def test_factors_of_a_head_with_inplace_relu(torch, alexnet_like, rng):
    # A hook on the layer would see its output after the rectifier, and be wrong by 95 %.
    X = rng.normal(size=(6, 12)).astype(np.float32)
    alexnet_like.train()  # dropout must not matter
    head = DenseHead.from_torch(alexnet_like)
    assert repr(head) == "DenseHead(12 -> 10 -> 8 -> 5, activation='relu', output='softmax')"
    for layer, expected in enumerate(autograd_gradients(torch, alexnet_like, X)):
        a, e = head.gradient_factors(X, layer=layer)
        assert a.dtype == e.dtype == np.float32
        assert_allclose(a[:, :, None] * e[:, None, :], expected, atol=1e-6)


def test_a_module_used_at_two_places_is_seen_at_both(torch, rng):
    nn = torch.nn
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(4, 6), relu, nn.Linear(6, 6), relu, nn.Linear(6, 3))
    assert DenseHead.from_torch(module).activations == ("relu", "relu")


def test_nested_sequentials_activations_and_outputs(torch, rng):
    nn = torch.nn
    block = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh())
    module = nn.Sequential(nn.Flatten(), block, nn.Linear(6, 3), nn.Sigmoid(), nn.Linear(3, 2))
    head = DenseHead.from_torch(nn.Sequential(module, nn.Sigmoid()))
    assert head.activations == ("tanh", "logistic")
    assert head.output == "logistic"
    X = rng.normal(size=(5, 4)).astype(np.float32)
    with torch.no_grad():
        assert_allclose(logits_of(head, X), module(torch.tensor(X)).numpy(), atol=1e-6)
    assert (
        DenseHead.from_torch(nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))).output == "softmax"
    )


def test_named_layers_of_any_module(torch, rng):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = torch.nn.Conv2d(1, 2, 3)
            self.fc6 = torch.nn.Linear(4, 6)
            self.fc7 = torch.nn.Linear(6, 3)

    module = Network()
    head = DenseHead.from_torch(module, ["fc6", "fc7"], activation="tanh")
    assert_array_equal(head.weights[1], module.fc7.weight.detach().numpy().T)
    with pytest.raises(
        ValueError, match=r"no torch.nn.Linear named 'fc8'; it has \['fc6', 'fc7'\]"
    ):
        DenseHead.from_torch(module, ["fc7", "fc8"])
    with pytest.raises(ValueError, match="do not form a chain"):
        DenseHead.from_torch(module, ["fc7", "fc6"])
    with pytest.raises(TypeError, match=r"Module '' is a Network.*name the Linear layers"):
        DenseHead.from_torch(module)


def test_modules_without_dense_equivalent_are_named(torch):
    nn = torch.nn
    with pytest.raises(TypeError, match="Module '1' is a BatchNorm1d"):
        DenseHead.from_torch(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    with pytest.raises(TypeError, match=r"\['ReLU', 'Tanh'\]"):
        DenseHead.from_torch(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 2)))
    with pytest.raises(TypeError, match=r"ends in \['ReLU'\]"):
        DenseHead.from_torch(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    with pytest.raises(ValueError, match=r"has no torch.nn.Linear"):
        DenseHead.from_torch(nn.Sequential(nn.Flatten()))
    with pytest.raises(TypeError, match=r"reads a torch.nn.Module, got list"):
        DenseHead.from_torch([])


def test_tied_weights_are_refused(torch):
    nn = torch.nn
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="used by more than one layer"):
        DenseHead.from_torch(nn.Sequential(layer, nn.ReLU(), layer))


def test_half_precision_becomes_float32_and_double_stays(torch):
    for dtype, expected in ((torch.bfloat16, np.float32), (torch.float64, np.float64)):
        head = DenseHead.from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2)).to(dtype))
        assert head.weights[0].dtype == head.biases[0].dtype == expected


def test_torch_is_not_imported_with_the_package():
    import subprocess
    import sys

    code = "import sys, skfisher; assert 'torch' not in sys.modules and 'cupy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
