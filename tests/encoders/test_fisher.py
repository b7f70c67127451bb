import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline

from skfisher import Bags, DiagonalGaussianMixture, FisherVectorEncoder, PowerL2Normalizer
from tests.memory import peak_memory
from tests.ops import references


def bags_of(n_bags=20, d=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, d)).astype(dtype) for n in rng.integers(2, 60, size=n_bags)]


@pytest.fixture(scope="module")
def bags():
    return bags_of()


@pytest.fixture(scope="module")
def encoder(bags):
    return FisherVectorEncoder(3, random_state=0).fit(bags)


def reference(encoder, bags, **options):
    x = np.concatenate(bags)
    stops = np.cumsum([len(b) for b in bags])
    starts = stops - [len(b) for b in bags]
    parameters = encoder.weights_, encoder.means_, encoder.variances_
    return references.fisher_vector(x, starts, stops, *parameters, **options)


def test_encodings_are_the_fisher_vectors_of_the_fitted_mixture(bags, encoder):
    np.testing.assert_allclose(encoder.transform(bags), reference(encoder, bags), atol=1e-12)


def test_fit_is_that_of_the_mixture_alone(bags, encoder):
    tuned = {"max_iter": 3, "variance_floor": 0.05, "max_descriptors": 300, "random_state": 0}
    encoder = FisherVectorEncoder(3, **tuned).fit(bags)
    mixture = DiagonalGaussianMixture(3, **tuned)
    with pytest.warns(ConvergenceWarning):
        mixture.fit(bags)
    for name in ("weights_", "means_", "variances_", "n_iter_"):
        np.testing.assert_array_equal(getattr(encoder, name), getattr(mixture, name))
    assert encoder.mixture_.lower_bounds_ == mixture.lower_bounds_
    np.testing.assert_array_equal(encoder.mixture_.predict(bags), mixture.predict(bags))


def test_all_parameters_of_a_mixture_are_those_of_the_mixture_given(bags):
    mixture = DiagonalGaussianMixture(2, init_params="k-means++", batch_size=8, random_state=0)
    encoder = FisherVectorEncoder(mixture=mixture).fit(bags)
    np.testing.assert_array_equal(encoder.means_, mixture.fit(bags).means_)


def test_an_encoder_that_is_not_fitted_says_so(bags):
    encoder = FisherVectorEncoder()
    assert not hasattr(encoder, "means_")
    for call in (encoder.transform, encoder.get_feature_names_out, lambda _: encoder.blocks()):
        with pytest.raises(NotFittedError):
            call(bags)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_normalised_encodings_are_those_of_the_normaliser(encoder, dtype):
    bags = bags_of(dtype=dtype)
    two_steps = make_pipeline(clone(encoder), PowerL2Normalizer())
    one_step = clone(encoder).set_params(normalize="power-l2")
    found = one_step.fit_transform(bags)
    np.testing.assert_array_equal(found, two_steps.fit_transform(bags))
    np.testing.assert_array_equal(one_step.transform(bags[3:4]), found[3:4])
    assert list(one_step.get_feature_names_out()) == list(two_steps[0].get_feature_names_out())


def test_normalising_takes_no_second_array(rng):
    x = rng.normal(size=(4000, 1, 8))
    encoder = FisherVectorEncoder(16, random_state=0).fit(x[:100])
    peaks = []
    for normalize in (None, "power-l2"):
        encoder.set_params(normalize=normalize)
        peaks.append(peak_memory(lambda: encoder.transform(x)))
    assert peaks[1] - peaks[0] < encoder.transform(x).nbytes / 4


def test_blocks_are_the_weights_and_the_means_and_variances_of_each_component(bags, encoder):
    weights, means, variances = np.split(encoder.blocks(), [3, 12])
    assert len(set(weights)) == 1
    parts = np.vstack([means.reshape(3, 3), variances.reshape(3, 3)])
    assert (parts == parts[:, :1]).all()
    assert len({*weights, *parts[:, 0]}) == 7
    lengths = np.linalg.norm(
        PowerL2Normalizer(blocks=encoder.blocks()).transform(encoder.transform(bags))[:, 3:6],
        axis=1,
    )
    np.testing.assert_allclose(lengths, 7**-0.5)
    without = clone(encoder).set_params(include_weights=False).fit(bags)
    np.testing.assert_array_equal(without.blocks(), np.repeat(np.arange(6), 3))


@pytest.mark.parametrize("native", ["0", ""], ids=["NumPy", "as it is built"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 2), (16, 24), (130, 33)])
def test_the_bits_of_an_encoding_depend_on_its_bag_alone(rng, monkeypatch, shape, dtype, native):
    monkeypatch.setenv("SKFISHER_NATIVE", native)
    k, d = shape
    lengths = rng.permutation([1, 1, 1, 2, 2, 3, 5, 31, 64, 255, 256, 257, 513, 600, 2500])
    x = np.split(rng.normal(100, 20, size=(lengths.sum(), d)).astype(dtype), lengths.cumsum()[:-1])
    encoder = FisherVectorEncoder(k, max_descriptors=1000, random_state=0)
    whole = encoder.fit(x).transform(x)
    for one, bag in zip(whole, x, strict=True):
        np.testing.assert_array_equal(encoder.transform([bag.copy()])[0], one)
        np.testing.assert_array_equal(encoder.transform([np.asfortranarray(bag)])[0], one)
    order = rng.permutation(len(x))
    np.testing.assert_array_equal(encoder.transform([x[i] for i in order]), whole[order])
    threads = encoder.set_params(n_jobs=2).transform(Bags.from_list(x)[order])
    np.testing.assert_array_equal(threads, whole[order])


def test_weights_can_be_left_out(bags, encoder):
    without = clone(encoder).set_params(include_weights=False).fit(bags)
    np.testing.assert_array_equal(without.transform(bags), encoder.transform(bags)[:, 3:])
    assert without.get_feature_names_out()[0] == "mean_k0_d0"


def test_feature_names_say_block_component_and_dimension(encoder):
    names = encoder.get_feature_names_out()
    assert len(names) == len(set(names)) == 3 * 7
    assert names[2] == "weight_k2"
    assert names[3 + 1 * 3 + 2] == "mean_k1_d2"
    assert names[3 + 9 + 2 * 3 + 0] == "variance_k2_d0"
    named = encoder.get_feature_names_out(["r", "g", "b"])
    assert named[3] == "mean_k0_r"
    with pytest.raises(ValueError, match="number of features"):
        encoder.get_feature_names_out(["r", "g"])


def test_every_form_of_input_gives_the_same_numbers(encoder):
    cube = np.random.default_rng(0).normal(size=(5, 8, 3))
    expected = encoder.transform(cube)
    packed = Bags.from_list(list(cube))
    as_objects = np.empty(5, dtype=object)
    as_objects[:] = list(cube)
    for form in (list(cube), tuple(cube), as_objects, packed, packed[np.arange(5)]):
        np.testing.assert_allclose(encoder.transform(form), expected, rtol=1e-12)
    np.testing.assert_allclose(encoder.transform(packed[[3, 1]]), expected[[3, 1]], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(encoder, dtype):
    assert encoder.transform(bags_of(dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "out"), [("uint8", "float32"), ("float16", "float32"), ("int64", "float64")]
)
def test_other_numbers_are_converted_and_never_wrap_around(encoder, dtype, out):
    bags = [np.abs(b * 100).astype(dtype) for b in bags_of()]
    encodings = encoder.transform(bags)
    assert encodings.dtype == out
    wide = encoder.transform([b.astype(np.float64) for b in bags])
    np.testing.assert_allclose(encodings, wide, rtol=1e-4, atol=1e-4 * np.abs(wide).max())


def test_threads_and_tasks_do_not_change_a_bit(bags, encoder, monkeypatch):
    expected = encoder.transform(bags)
    for rows in (100, 300):
        monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", rows)
        one = encoder.set_params(n_jobs=None).transform(bags)
        two = encoder.set_params(n_jobs=2).transform(bags)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one, expected, rtol=1e-10, atol=1e-13)
    encoder.set_params(n_jobs=None)


@pytest.mark.parametrize("offset", [0, 50])
def test_a_long_bag_is_shared_among_threads(monkeypatch, offset):
    bags = [b + offset for b in bags_of(n_bags=6)]
    bags.insert(3, np.concatenate(bags))
    encoder = FisherVectorEncoder(3, random_state=0).fit(bags)
    whole = encoder.transform(bags)
    monkeypatch.setattr("skfisher.layers.encode.LONG_BAG", 30)
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
    one = encoder.transform(bags)
    np.testing.assert_allclose(one, whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(encoder.set_params(n_jobs=2).transform(bags), one)
    assert encoder.transform([b.astype(np.float32) for b in bags]).dtype == np.float32
    assert encoder.transform(bags[3:4]).shape == (1, 21)


def test_a_fitted_mixture_is_used_as_it_is(bags):
    mixture = DiagonalGaussianMixture(2, random_state=1).fit(bags)
    for given in (mixture, mixture.to_sklearn(), FrozenEstimator(mixture)):
        encoder = FisherVectorEncoder(mixture=given).fit(bags[:1])
        np.testing.assert_array_equal(encoder.means_, mixture.means_)
        np.testing.assert_allclose(encoder.transform(bags), reference(mixture, bags), atol=1e-12)
    # a frozen one also survives cloning
    again = clone(FisherVectorEncoder(mixture=FrozenEstimator(mixture))).fit(bags[:1])
    np.testing.assert_array_equal(again.means_, mixture.means_)


@pytest.mark.parametrize(
    "mixture",
    [
        DiagonalGaussianMixture(2, random_state=1),
        GaussianMixture(2, covariance_type="diag", random_state=1),
    ],
)
def test_an_unfitted_mixture_is_cloned_and_fitted(bags, mixture):
    encoder = FisherVectorEncoder(mixture=mixture).fit(bags)
    assert not hasattr(mixture, "means_")
    assert encoder.means_.shape == (2, 3)
    assert not hasattr(encoder, "partial_fit")
    with pytest.raises(ValueError, match="at least 2 descriptors"):
        FisherVectorEncoder(mixture=mixture).fit([np.ones((1, 3))])


def test_mixtures_of_the_wrong_kind_are_refused(bags):
    x = np.concatenate(bags)
    with pytest.raises(ValueError, match="covariance_type='tied'"):
        FisherVectorEncoder(mixture=GaussianMixture(2, covariance_type="tied").fit(x)).fit(bags)
    with pytest.raises(TypeError, match="mixture is a FisherVectorEncoder: pass a Diagonal"):
        FisherVectorEncoder(mixture=FisherVectorEncoder()).fit(bags)
    narrow = DiagonalGaussianMixture(2).fit([b[:, :2] for b in bags])
    with pytest.raises(ValueError, match=r"X\[0\] has 3 features per descriptor, but mixture was"):
        FisherVectorEncoder(mixture=narrow).fit(bags)


def test_a_mixture_set_by_hand_is_read(bags):
    peer = GaussianMixture(2, covariance_type="diag")
    peer.weights_ = np.array([0.5, 0.5])
    peer.means_, peer.covariances_ = np.array([[-1.0] * 3, [1.0] * 3]), np.ones((2, 3))
    encoder = FisherVectorEncoder(mixture=peer).fit(bags)
    np.testing.assert_allclose(encoder.transform(bags), reference(encoder, bags), atol=1e-12)


def test_a_fill_value_at_transform_is_named(bags):
    narrow = [b.astype(np.float32) for b in bags]
    encoder = FisherVectorEncoder(2, random_state=0).fit(narrow)
    narrow[5] = narrow[5].copy()
    narrow[5][0, 2] = -3e38
    with pytest.raises(
        ValueError, match=r"X\[5\] has a descriptor .*: its square overflows float32"
    ):
        encoder.transform(narrow)
    assert np.isfinite(encoder.transform([b.astype(np.float64) for b in narrow])).all()


def test_the_scale_of_one_dimension_does_not_matter(bags):
    # k-means does see scales: so from the same mixture, fitted on by one iteration of EM
    plain = DiagonalGaussianMixture(3, random_state=0, tol=1e-2).fit(bags)
    factors = np.array([1e8, 1.0, 1e-8])
    scaled = DiagonalGaussianMixture(3, max_iter=3, tol=0, warm_start=True)
    scaled._keep_mixture(plain._mixture()._replace(
        means=plain.means_ * factors, variances=plain.variances_ * factors**2))  # fmt: skip
    plain.set_params(max_iter=3, tol=0, warm_start=True)
    with pytest.warns(ConvergenceWarning):
        plain.fit(bags)
    with pytest.warns(ConvergenceWarning):
        scaled.fit([b * factors for b in bags])
    one = FisherVectorEncoder(mixture=plain).fit(bags).transform(bags)
    other = FisherVectorEncoder(mixture=scaled).fit([b * factors for b in bags])
    np.testing.assert_allclose(other.transform([b * factors for b in bags]), one, atol=1e-9)


@pytest.mark.parametrize(("dtype", "scale"), [("float64", 1e100), ("float32", 1e-40)])
def test_extreme_scales_of_all_descriptors_do_not_matter(bags, dtype, scale):
    plain = FisherVectorEncoder(2, random_state=0).fit(bags)
    moved = [(b * scale).astype(dtype) for b in bags]
    scaled = FisherVectorEncoder(2, random_state=0).fit(moved)
    tolerance = 1e-8 if dtype == "float64" else 1e-3  # five bits are left of 1e-40 in float32
    np.testing.assert_allclose(
        np.sort(scaled.transform(moved)), np.sort(plain.transform(bags)), atol=tolerance
    )


def test_partial_fit_learns_and_encodes(bags):
    encoder = FisherVectorEncoder(3, random_state=0)
    for first in range(0, 20, 5):
        encoder.partial_fit(bags[first : first + 5])
    np.testing.assert_allclose(encoder.transform(bags), reference(encoder, bags), atol=1e-12)


def test_too_few_descriptors_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="n_components=64 needs at least 64 descriptors to fit, "
                       "got 40 in n_samples=8 bags: lower n_components"):  # fmt: skip
        FisherVectorEncoder().fit([np.zeros((5, 2))] * 8)


def test_a_table_after_bags_is_refused(encoder):
    with pytest.raises(ValueError, match=r"write \[X\] if X is one bag"):
        encoder.transform(np.zeros((4, 3)))


def test_cuda_without_a_gpu_says_what_to_install(bags, monkeypatch):
    monkeypatch.setattr(
        "skfisher.arrays.devices.cuda_usable", lambda: (0, "CuPy is not installed.")
    )
    with pytest.raises(ValueError, match="device='cuda' needs CuPy and a visible GPU; "):
        FisherVectorEncoder(2, device="cuda").fit(bags)
    with pytest.raises(ValueError, match="device='tpu' is not known"):
        FisherVectorEncoder(2, device="tpu").fit(bags)
    auto = FisherVectorEncoder(2, device="auto", random_state=0).fit(bags)
    plain = FisherVectorEncoder(2, random_state=0).fit(bags)
    np.testing.assert_array_equal(auto.transform(bags), plain.transform(bags))


@pytest.mark.parametrize("offset", [0, 50])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_devices_and_their_memory_do_not_change_a_bit(stand_in, monkeypatch, offset, dtype):
    bags = [(b + offset).astype(dtype) for b in bags_of(n_bags=6)]
    bags.insert(3, np.concatenate(bags))
    encoder = FisherVectorEncoder(3, random_state=0).fit(bags)
    monkeypatch.setattr("skfisher.layers.encode.LONG_BAG", 30)
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
    expected = encoder.transform(bags)
    found = []
    for device in ("cuda", "cuda:1", "cuda:all", ["cuda:1", "cuda:0"]):
        for n_bytes in (2**40, 4000):
            monkeypatch.setattr("tests.device_array.Memory.n_bytes", n_bytes)
            found.append(encoder.set_params(device=device).transform(bags))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    assert found[0].dtype == expected.dtype
    tolerance = 1e-12 if expected.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=tolerance)
    for subset in (bags[3:4], bags[:3]):
        np.testing.assert_array_equal(
            encoder.transform(subset), encoder.set_params(device="cuda").transform(subset)
        )
