"""Modules of PyTorch: their gradients, the forms of input, and the way from and to estimators."""

import copy
import io
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skfisher import (
    Bags,
    CompactBilinearPooling,
    FisherVectorEncoder,
    PowerL2Normalizer,
    VLADEncoder,
)

torch = pytest.importorskip("torch")
from skfisher import SecondOrderPooling as SecondOrderEncoder  # noqa: E402
from skfisher.torch import (  # noqa: E402
    VLAD,
    CompactBilinear,
    FisherVector,
    PowerL2,
    SecondOrderPooling,
)

B, T, D, K = 3, 6, 4, 3
RNG = np.random.default_rng(0)
BAGS = [RNG.normal(size=(n, D)) for n in (6, 1, 4)]
LENGTHS = torch.tensor([len(bag) for bag in BAGS])


def padded(fill=0.0):
    x = torch.full((B, T, D), fill, dtype=torch.float64)
    for i, bag in enumerate(BAGS):
        x[i, : len(bag)] = torch.from_numpy(bag)
    return x


PACKED = torch.from_numpy(np.concatenate(BAGS))
OFFSETS = torch.tensor([0, *np.cumsum([len(b) for b in BAGS])])
MODULES = {
    "FisherVector": lambda: FisherVector(K, D, dtype=torch.float64),
    "FisherVector without weights": lambda: FisherVector(
        K, D, include_weights=False, dtype=torch.float64
    ),
    "VLAD": lambda: VLAD(K, D, ratio=5.0, dtype=torch.float64),
    "VLAD, tied": lambda: VLAD(K, D, ratio=5.0, tied=True, dtype=torch.float64),
    "VLAD, metrics": lambda: VLAD(
        K, D, ratio=5.0, tied=True, metric="diagonal", dtype=torch.float64
    ),
    "NetFV": lambda: VLAD(K, D, ratio=5.0, moments=2, dtype=torch.float64),
    "CompactBilinear": lambda: CompactBilinear(16, D, dtype=torch.float64),
    "Gaussian": lambda: SecondOrderPooling(D, ridge=0.1, dtype=torch.float64),
    "projected": lambda: SecondOrderPooling(D, n_components=2, ridge=0.1, dtype=torch.float64),
    "iSQRT": lambda: SecondOrderPooling(
        D, "covariance", function="newton_schulz", ridge=0.1, dtype=torch.float64
    ),
    "kernel pooling": lambda: CompactBilinear(16, D, degree=3, gamma=0.5, dtype=torch.float64),
}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def called(module, *names):
    """Return the module as a function of input and parameters."""

    def call(x, *values, **form):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), x, form)

    return call


def parameters_of(module):
    names = [name for name, _ in module.named_parameters()]
    return names, [p.detach().clone().requires_grad_() for p in module.parameters()]


@every_module
def test_gradients_are_those_of_finite_differences(make):
    module = make()
    names, values = parameters_of(module)
    call = called(module, *names)
    x = padded().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *v: call(x, *v, lengths=LENGTHS), (x, *values))
    x = PACKED.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *v: call(x, *v, offsets=OFFSETS), (x, *values))
    maps = torch.randn(2, D, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (maps, *values))


def test_second_derivatives_are_refused():
    module = FisherVector(K, D, dtype=torch.float64)
    x = torch.randn(2, T, D, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.sum().backward()


def test_normalisation_has_the_gradient_of_finite_differences():
    x = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    for module in (PowerL2(), PowerL2(0.7, None)):
        assert torch.autograd.gradcheck(module, (x,))
    expected = PowerL2Normalizer().fit_transform(x.detach().numpy())
    np.testing.assert_allclose(PowerL2(0.5, None)(x).detach().numpy(), expected, atol=1e-12)


@every_module
def test_every_form_of_the_same_bags_gives_the_same(make):
    module = make()
    expected = module(PACKED, offsets=OFFSETS)
    mask = torch.arange(T) < LENGTHS[:, None]
    shuffled = torch.stack([torch.randperm(T) for _ in range(B)])
    back = torch.argsort(shuffled, dim=1)
    nested = torch.nested.nested_tensor([torch.from_numpy(b) for b in BAGS], layout=torch.jagged)
    torch.testing.assert_close(module(padded(torch.nan), lengths=LENGTHS), expected)
    torch.testing.assert_close(module(padded(torch.nan), mask=mask), expected)
    there = torch.take_along_dim(padded(torch.nan), back[:, :, None], dim=1)
    torch.testing.assert_close(module(there, mask=torch.take_along_dim(mask, back, 1)), expected)
    torch.testing.assert_close(module(nested), expected)
    maps = torch.randn(2, D, 2, 3, dtype=torch.float64)
    rows = maps.permute(0, 2, 3, 1).reshape(2, 6, D)
    torch.testing.assert_close(module(maps), module(rows))


@every_module
def test_without_gradients_encodings_are_the_same(make):
    module = make()
    expected = module(padded().requires_grad_(), lengths=LENGTHS)
    assert expected.requires_grad
    with torch.no_grad():
        found = module(padded(), lengths=LENGTHS)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach())


ENCODERS = {
    "FisherVector": (FisherVector, FisherVectorEncoder(K, random_state=0)),
    "VLAD": (VLAD, VLADEncoder(K, normalize=None, random_state=0)),
    "VLAD, hard": (VLAD, VLADEncoder(K, assignment="hard", normalize=None, random_state=0)),
    "NetFV": (VLAD, VLADEncoder(K, moments=2, normalize=None, random_state=0)),
    "Gaussian": (SecondOrderPooling, SecondOrderEncoder()),
    "projected": (SecondOrderPooling, SecondOrderEncoder("covariance", n_components=2)),
    "sketch": (CompactBilinear, CompactBilinearPooling(16, random_state=0)),
    "kernel": (
        CompactBilinear,
        CompactBilinearPooling(16, degree=3, kernel="rbf", gamma=0.5, random_state=0),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("cls", "encoder"), ENCODERS.values(), ids=ENCODERS)
def test_encoders_come_and_go(cls, encoder, dtype):
    bags = [bag.astype(dtype) for bag in BAGS * 4]
    encoder = clone(encoder).fit(bags)
    module = cls.from_estimator(encoder, dtype=torch.float64)
    values = Bags.from_list(bags)
    offsets = torch.tensor([0, *values.stops])
    found = module(torch.from_numpy(values.values), offsets=offsets).detach().numpy()
    expected = encoder.transform(bags)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(found, expected, atol=tolerance * max(1, np.abs(expected).max()))
    back = module.to_estimator()
    again = back.transform(bags)
    np.testing.assert_allclose(again, expected, atol=tolerance * max(1, np.abs(expected).max()))


def test_an_encoder_made_of_a_module_begins_anew_with_its_own_descriptors():
    back = SecondOrderPooling(D, dtype=torch.float64).to_estimator()
    expected = SecondOrderEncoder(standardize=False).partial_fit(BAGS).transform(BAGS)
    np.testing.assert_array_equal(back.partial_fit(BAGS).transform(BAGS), expected)


def test_other_estimators_and_those_not_fitted_are_refused():
    with pytest.raises(TypeError, match="reads a VLADEncoder, got FisherVectorEncoder"):
        VLAD.from_estimator(FisherVectorEncoder())
    with pytest.raises(NotFittedError):
        FisherVector.from_estimator(FisherVectorEncoder())
    with pytest.raises(ValueError, match="this module has learnt an assignment of its own"):
        VLAD(K, D).to_estimator()


def test_intra_normalisation_is_that_of_the_encoder():
    encoder = VLADEncoder(K, normalize="intra", random_state=0).fit(BAGS)
    module = VLAD.from_estimator(encoder, dtype=torch.float64)
    net = torch.nn.Sequential(module, PowerL2(1, None, blocks=module.blocks()))
    x = torch.from_numpy(BAGS[0])[None]
    np.testing.assert_allclose(net(x).detach().numpy(), encoder.transform(BAGS[:1]), atol=1e-10)
    rows = torch.randn(3, K * D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net[1], (rows,))


def test_state_is_saved_and_loaded():
    module, other = FisherVector(K, D), FisherVector(K, D)
    x = torch.randn(2, T, D)
    assert not torch.equal(module(x), other(x))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(module(x), other(x))
    assert torch.equal(copy.deepcopy(module)(x), module(x))


def test_a_pickled_module_works_in_a_new_process(tmp_path):
    module, x = FisherVector(K, D), torch.randn(2, T, D)
    torch.save((module, x, module(x).detach()), tmp_path / "module.pt")
    program = (
        "import sys, torch\n"
        "module, x, expected = torch.load(sys.argv[1], weights_only=False)\n"
        "assert torch.equal(module(x), expected)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "module.pt")], check=True)


def test_a_codebook_starts_from_a_loader():
    x = torch.randn(40, T, D) * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 5
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, torch.zeros(40)), batch_size=7
    )
    module = FisherVector(2, D).start(loader)
    again = FisherVector(2, D).start(loader)
    mixture = module.to_estimator()
    np.testing.assert_allclose(mixture.weights_ @ mixture.means_, 5, atol=0.5)
    for name, p in module.named_parameters():
        assert torch.equal(p, dict(again.named_parameters())[name])
    shifted = FisherVector(2, D).start(loader, of=lambda x: x - 5).to_estimator()
    np.testing.assert_allclose(shifted.weights_ @ shifted.means_, 0, atol=0.5)
    with pytest.raises(ValueError, match="batches have 1 descriptors, but the start needs 2"):
        FisherVector(2, D).start([x[:1, :1]])


def test_a_network_learns_through_the_layer():
    y = torch.arange(60) % 2
    x = torch.randn(60, 20, D) * (1 + 2 * y[:, None, None])  # of equal means
    net = torch.nn.Sequential(
        torch.nn.Linear(D, D), FisherVector(2, D), PowerL2(), torch.nn.Linear(2 * (2 * D + 1), 2)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    before = net[0].weight.detach().clone()
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert (net(x).argmax(1) == y).float().mean() > 0.95
    assert not torch.equal(net[0].weight, before)


@pytest.mark.parametrize("written", ["x", "means"])
def test_what_was_written_to_since_has_no_gradient(written):
    module, x = FisherVector(K, D), torch.randn(2, T, D)
    loss = module(x).sum()
    with torch.no_grad():
        (x if written == "x" else module.means).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("trained", ["x", "parameters"])
def test_only_what_needs_a_gradient_gets_one(trained):
    module, x = FisherVector(K, D), torch.randn(2, T, D)
    module.requires_grad_(trained == "parameters")
    x.requires_grad_(trained == "x")
    module(x).sum().backward()
    assert (x.grad is not None) == (trained == "x")
    assert all((p.grad is not None) == (trained == "parameters") for p in module.parameters())


@pytest.mark.parametrize("cls", [FisherVector, VLAD])
def test_it_is_compiled_as_one_graph(cls):
    net = torch.nn.Sequential(torch.nn.Linear(D, D), cls(K, D), PowerL2())
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, T, D)
    torch.testing.assert_close(compiled(x), net(x))
    gradients = []
    for model in (net, compiled):
        net.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*gradients)
    module = cls(K, D)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    mask = torch.rand(5, T) < 0.7
    mask[:, 2] = True
    torch.testing.assert_close(compiled(x, mask=mask), module(x, mask=mask))


def test_the_operators_keep_the_promises_of_operators():
    from skfisher.torch.operator import normalize, pool

    x, starts, stops = torch.randn(2 * T, D), torch.tensor([0, T]), torch.tensor([T, 2 * T])
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for module in (FisherVector(K, D), VLAD(K, D)):  # without sums that are kept, and with them
        values = module._values()
        for keep in (True, False):
            torch.library.opcheck(
                pool, (x, starts, stops, values, module._name, keep), test_utils=tests
            )
    blocks = torch.tensor([0, 0, 1, 1])
    torch.library.opcheck(normalize, (torch.randn(3, 4), blocks, 0.5, 1e-4), test_utils=tests)


def test_half_precision_computes_in_float32_under_autocast():
    module, x = FisherVector(K, D), torch.randn(2, T, D).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(x.float()))
    with pytest.raises(TypeError, match=r"descriptors have dtype torch.bfloat16: write .float\(\)"):
        module(x)


def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 8)
    module, results, n_threads = FisherVector(K, D), [], torch.get_num_threads()
    for n in (1, 3):
        torch.set_num_threads(n)
        x = torch.from_numpy(np.concatenate(BAGS * 4)).float().requires_grad_()
        offsets = torch.tensor([0, *np.cumsum([len(b) for b in BAGS * 4])])
        module.zero_grad()
        module(x, offsets=offsets).square().sum().backward()
        results.append([x.grad, *(p.grad.clone() for p in module.parameters())])
    torch.set_num_threads(n_threads)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("x", "form", "message"),
    [
        (torch.zeros(4, D), {}, r"must have shape \(B, T, D\).*got \(4, 4\)"),
        (torch.zeros(0, 3, D), {}, "there are no bags"),
        (torch.zeros(2, 3, D + 1), {}, "descriptors have 5 features, but this module was made for"),
        (torch.zeros(2, 3, D), {"lengths": torch.tensor([3, 0])}, "bag 1 is empty"),
        (torch.zeros(2, 3, D), {"lengths": torch.tensor([3, 4])}, r"lengths\[1\] is 4, but x has"),
        (torch.zeros(2, 3, D), {"lengths": torch.tensor([3.0, 1])}, "lengths must be integers"),
        (torch.zeros(2, 3, D), {"mask": torch.ones(2, 4, dtype=torch.bool)}, "mask must be a bool"),
        (torch.zeros(2, 3, D), {"mask": torch.ones(2, 3)}, "mask must be a bool"),
        (
            torch.zeros(2, 3, D),
            {"mask": torch.ones(2, 3, dtype=torch.bool), "lengths": torch.tensor([3, 1])},
            "mask says which descriptors there are: leave lengths out",
        ),
        (torch.zeros(6, D), {"offsets": torch.tensor([0, 3, 7])}, "bag 1 is to be rows 3 to 7"),
        (torch.zeros(6, D), {"offsets": torch.tensor([0, 3, 3, 6])}, "bag 1 is empty"),
        (torch.zeros(2, 3, D), {"offsets": torch.tensor([0, 3])}, "go with packed descriptors"),
    ],
)
def test_bad_input_is_named(x, form, message):
    with pytest.raises(ValueError, match=message):
        FisherVector(K, D)(x, **form)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"descriptors have dtype torch\.int64"):
        FisherVector(K, D)(torch.zeros(2, 3, D, dtype=torch.int64))
