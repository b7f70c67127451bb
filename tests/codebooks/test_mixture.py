import numpy as np
import pytest
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.utils import get_tags

from skfisher import Bags, DiagonalGaussianMixture
from tests.memory import peak_memory


def bags_of(n_bags=30, d=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(4, d)) * 4
    return [
        (centers[rng.integers(4, size=n)] + rng.normal(size=(n, d))).astype(dtype)
        for n in rng.integers(1, 80, size=n_bags)
    ]


@pytest.fixture(scope="module")
def bags():
    return bags_of()


@pytest.fixture(scope="module")
def fitted(bags):
    return DiagonalGaussianMixture(4, random_state=0).fit(bags)


def test_the_likelihood_reached_is_that_of_scikit_learn(bags, fitted):
    x = np.concatenate(bags)
    peer = GaussianMixture(4, covariance_type="diag", random_state=0, tol=1e-6, max_iter=500).fit(x)
    assert fitted.converged_
    assert fitted.score(bags) > peer.score(x) - 1e-2
    assert fitted.score(bags) == pytest.approx(fitted.to_sklearn().score(x), rel=1e-10)


def test_lower_bounds_rise_and_end_within_tol(fitted):
    gains = np.diff(fitted.lower_bounds_)
    assert gains.min() > -1e-12
    assert gains[-1] < fitted.tol <= gains[-2]
    assert fitted.n_iter_ == len(fitted.lower_bounds_)
    assert fitted.lower_bound_ == fitted.lower_bounds_[-1]


def test_posteriors_and_densities_are_those_of_scipy(bags, fitted):
    x = np.concatenate(bags)
    joint = (
        np.log(fitted.weights_)
        + np.array(
            [
                norm.logpdf(x, m, np.sqrt(v)).sum(axis=1)
                for m, v in zip(fitted.means_, fitted.variances_, strict=True)
            ]
        ).T
    )
    density = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(fitted.score_samples(bags), density, rtol=1e-10)
    np.testing.assert_allclose(
        fitted.predict_proba(bags), np.exp(joint - density[:, None]), rtol=1e-8, atol=1e-14
    )
    np.testing.assert_array_equal(fitted.predict(bags), joint.argmax(axis=1))


def test_rows_come_bag_after_bag_in_the_order_of_the_bags(bags, fitted):
    order = [7, 0, 7, 3]
    some = Bags.from_list(bags)[order]
    wanted = np.concatenate([fitted.predict_proba([bags[i]]) for i in order])
    np.testing.assert_allclose(fitted.predict_proba(some), wanted, rtol=1e-10)
    # a 2-D array is just as good for a mixture
    np.testing.assert_allclose(fitted.predict_proba(np.concatenate(some.to_list())), wanted)


def test_bayesian_and_akaike_criteria_are_those_of_scikit_learn(bags, fitted):
    x, peer = np.concatenate(bags), fitted.to_sklearn()
    assert fitted.bic(bags) == pytest.approx(peer.bic(x), rel=1e-12)
    assert fitted.aic(bags) == pytest.approx(peer.aic(x), rel=1e-12)


def test_to_scikit_learn_and_back(bags, fitted):
    peer = fitted.to_sklearn()
    x = np.concatenate(bags)
    np.testing.assert_allclose(
        peer.predict_proba(x), fitted.predict_proba(x), rtol=1e-8, atol=1e-14
    )
    back = DiagonalGaussianMixture.from_sklearn(peer)
    np.testing.assert_array_equal(back.means_, fitted.means_)
    assert back.score(bags) == pytest.approx(fitted.score(bags), rel=1e-12)
    back.partial_fit(bags[:5])  # goes on from there


def test_only_diagonal_mixtures_of_scikit_learn_are_read(bags):
    full = GaussianMixture(2).fit(np.concatenate(bags))
    with pytest.raises(ValueError, match="covariance_type='full'"):
        DiagonalGaussianMixture.from_sklearn(full)
    with pytest.raises(TypeError, match="mixture is a int"):
        DiagonalGaussianMixture.from_sklearn(3)
    with pytest.raises(NotFittedError):
        DiagonalGaussianMixture.from_sklearn(GaussianMixture(2, covariance_type="diag"))


def test_samples_have_the_moments_of_the_mixture(fitted):
    x, components = fitted.set_params(random_state=0).sample(200_000)
    np.testing.assert_allclose(np.bincount(components) / len(x), fitted.weights_, atol=5e-3)
    np.testing.assert_allclose(x.mean(axis=0), fitted.weights_ @ fitted.means_, atol=5e-2)
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match=f"n_samples={wrong}"):
            fitted.sample(wrong)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_other_dtypes_are_fitted_as_their_values(dtype):
    bags = [np.abs(b * 4).astype(dtype) for b in bags_of()]
    narrow = DiagonalGaussianMixture(3, random_state=0, tol=1e-3).fit(bags)
    wide = DiagonalGaussianMixture(3, random_state=0, tol=1e-3).fit([b.astype(float) for b in bags])
    np.testing.assert_allclose(narrow.means_, wide.means_, rtol=1e-3, atol=1e-3)
    assert narrow.means_.dtype == np.float64


def test_too_few_iterations_warn_with_the_remedy(bags):
    with pytest.warns(ConvergenceWarning, match=r"max_iter=1 iterations: raise max_iter or tol"):
        DiagonalGaussianMixture(4, max_iter=1, random_state=0).fit(bags)


def test_warm_start_goes_on_where_the_last_fit_ended(bags):
    mixture = DiagonalGaussianMixture(4, max_iter=2, tol=0, warm_start=True, random_state=0)
    with pytest.warns(ConvergenceWarning):
        first = mixture.fit(bags).lower_bounds_
    with pytest.warns(ConvergenceWarning):
        second = mixture.fit(bags).lower_bounds_
    assert second[0] > first[-1]
    one_go = DiagonalGaussianMixture(4, max_iter=4, tol=0, random_state=0)
    with pytest.warns(ConvergenceWarning):
        one_go.fit(bags)
    np.testing.assert_allclose(first + second, one_go.lower_bounds_, rtol=1e-12)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++"])
def test_the_seed_decides_everything(bags, init_params):
    def means(seed, **options):
        mixture = DiagonalGaussianMixture(
            5, init_params=init_params, random_state=seed, tol=1e-2, **options
        )
        return mixture.fit(bags).means_

    np.testing.assert_array_equal(means(3), means(3))
    np.testing.assert_array_equal(means(3), means(3, n_jobs=2))
    assert (means(3) != means(4)).any()
    half = {"max_descriptors": 300}
    np.testing.assert_array_equal(means(3, **half), means(3, n_jobs=2, **half))
    assert (means(3, **half) != means(3)).any()


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_no_last_bit_decides_where_a_fit_goes(rng, dtype, init_params):
    # Whole numbers are often as far from one centre as from another, and the order of dimensions
    # or the scale decides how that is rounded, as do the kernels of linear algebra.
    x = rng.integers(0, 6, size=(3000, 12)).astype(dtype)
    order = rng.permutation(12)
    mixture = DiagonalGaussianMixture(
        32, init_params=init_params, max_iter=5, tol=1e9, random_state=0
    )
    plain = mixture.fit([x]).means_.copy()
    moved = mixture.fit([x[:, order]]).means_
    # EM multiplies roundings by some tens
    np.testing.assert_allclose(moved, plain[:, order], rtol=0, atol=1e-4)
    thrice = mixture.fit([3 * x]).means_
    np.testing.assert_allclose(thrice / 3, plain, rtol=0, atol=1e-4)


def test_batches_of_bags_reach_nearly_the_same_likelihood(bags, fitted):
    online = DiagonalGaussianMixture(4, batch_size=3, random_state=0, tol=1e-3).fit(bags)
    assert online.score(bags) > fitted.score(bags) - 0.05


def test_a_stream_is_learnt_batch_by_batch(bags, fitted):
    online = DiagonalGaussianMixture(4, random_state=0)
    for _ in range(20):
        for first in range(0, 30, 5):
            online.partial_fit(bags[first : first + 5])
    assert online.score(bags) > fitted.score(bags) - 0.05
    assert online.n_iter_ == 120


def test_partial_fit_after_fit_does_not_forget_the_fit(bags):
    mixture = DiagonalGaussianMixture(4, random_state=0).fit(bags)
    before = mixture.score(bags)
    mixture.partial_fit(bags[:3])
    assert mixture.score(bags) > before - 0.5
    mixture.fit(bags)
    assert mixture.score(bags) == pytest.approx(before, abs=1e-9)


def test_small_sets_of_batches_do_not_converge_before_they_move():
    bags = np.random.default_rng(0).normal(size=(20, 20, 3))
    mixture = DiagonalGaussianMixture(64, batch_size=5, init_params="k-means++", random_state=0)
    mixture.fit(bags)  # 1280 descriptors are three epochs
    assert mixture.n_iter_ > 4
    assert mixture.lower_bound_ > mixture.lower_bounds_[0] + 0.05


def test_a_subsample_keeps_the_borders_of_bags(monkeypatch):
    sizes = []
    import skfisher.codebooks.fitting as fitter

    cut = fitter.row_units

    def spy(bags, where):
        sizes.append(len(bags))
        return cut(bags, where)

    monkeypatch.setattr(fitter, "row_units", spy)
    bags = np.random.default_rng(0).normal(size=(40, 50, 2))
    DiagonalGaussianMixture(2, batch_size=10, max_descriptors=1000, tol=1, random_state=0).fit(bags)
    assert set(sizes) == {10}


def test_a_batch_of_another_number_of_components_is_refused(bags):
    mixture = DiagonalGaussianMixture(2, random_state=0).partial_fit(bags)
    with pytest.raises(ValueError, match="the mixture has 2 components: call fit"):
        mixture.set_params(n_components=5).partial_fit(bags)


def test_fill_values_are_named_and_never_learnt():
    narrow = bags_of(d=300, dtype=np.float32)  # wide enough to be worked on in float32
    mixture = DiagonalGaussianMixture(1).partial_fit(narrow)
    means = mixture.means_.copy()
    spoilt = [b.copy() for b in narrow[:4]]
    spoilt[2][-1, 1] = 1e25
    with pytest.raises(ValueError, match=r"X\[2\] has a descriptor .* Is it a fill value\?"):
        mixture.partial_fit(spoilt)
    np.testing.assert_array_equal(mixture.means_, means)
    mixture.partial_fit(narrow)
    assert np.isfinite(mixture.means_).all()


def test_scores_need_no_posteriors_of_all_descriptors(fitted):
    x = np.zeros((300_000, 3), dtype=np.float32)
    wide = DiagonalGaussianMixture(64)
    wide._keep_mixture(fitted._mixture())
    wide.n_features_in_ = 3
    for name in ("weights_", "means_", "variances_"):
        setattr(wide, name, np.repeat(getattr(wide, name), 16, axis=0))
    wide.weights_ = wide.weights_ / 16
    peak = peak_memory(lambda: (wide.score(x), wide.predict(x)), n_calls=1)
    assert peak < 64 * 2**20 < 300_000 * 64 * 4


def test_the_warning_points_at_the_caller(bags):
    with pytest.warns(ConvergenceWarning) as record:
        DiagonalGaussianMixture(4, max_iter=1, random_state=0).fit(bags)
    assert record[0].filename == __file__


def test_it_is_a_density_estimator_of_scikit_learn(bags, fitted):
    assert get_tags(fitted).estimator_type == "density_estimator"
    again = DiagonalGaussianMixture(4, random_state=0)
    np.testing.assert_array_equal(again.fit_predict(bags), fitted.predict(bags))


def test_the_first_batch_must_hold_enough_descriptors():
    with pytest.raises(ValueError, match="n_components=64 needs at least 64 descriptors"):
        DiagonalGaussianMixture().partial_fit([np.zeros((10, 2))])


def test_verbose_prints_a_line_an_iteration(bags, capsys):
    mixture = DiagonalGaussianMixture(2, random_state=0, verbose=1).fit(bags)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == mixture.n_iter_
    assert lines[0].startswith("DiagonalGaussianMixture: iteration 1 of at most 100, mean log-lik")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 2.5}, "n_components"),
        ({"tol": -1}, "tol"),
        ({"variance_floor": 0}, "variance_floor"),
        ({"init_params": "random"}, "init_params"),
        ({"max_descriptors": 0}, "max_descriptors"),
        ({"device": "gpu"}, "device='gpu' is not known"),
        ({"device": "cuda:x"}, "device='cuda:x' is not known"),
    ],
)
def test_wrong_parameters_are_named(bags, parameters, words):
    with pytest.raises(ValueError, match=words):
        DiagonalGaussianMixture(**{"n_components": 2, **parameters}).fit(bags)


def test_constant_dimensions_and_duplicates_work():
    bags = [np.tile([[1.0, 5.0, 2.0]], (6, 1)) for _ in range(4)]
    for bag in bags[:2]:
        bag[:, 0] = 7
    mixture = DiagonalGaussianMixture(2, random_state=0).fit(bags)
    np.testing.assert_allclose(np.sort(mixture.means_[:, 0]), [1, 7])
    np.testing.assert_allclose(mixture.means_[:, 1:], [[5, 2], [5, 2]])
    assert np.isfinite(mixture.score(bags))
