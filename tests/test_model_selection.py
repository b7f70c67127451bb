"""scikit-learn's tools around pipelines that begin with bags, in every form bags may have."""

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    LeaveOneGroupOut,
    cross_val_predict,
    cross_val_score,
    learning_curve,
    train_test_split,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    PositionAppender,
    PowerL2Normalizer,
)
from skfisher.bags.mapped import is_mapped
from skfisher.parallel.threads import map_in_order

NEW = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)
Y = np.arange(48) % 3


def labelled_bags(lengths):
    """Return the class of a bag as which of three clusters most of its descriptors are in."""
    rng = np.random.default_rng(0)
    centers = np.array([[3.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0]])
    bags = []
    for label, n in zip(Y, lengths, strict=True):
        cluster = np.where(rng.random(n) < 0.8, label, rng.integers(3, size=n))
        bags.append(centers[cluster] + rng.normal(size=(n, 4)))
    return bags


RAGGED = labelled_bags(np.random.default_rng(1).integers(4, 15, size=len(Y)))
EQUAL = labelled_bags(np.full(len(Y), 8))
SINGLE = labelled_bags(np.full(len(Y), 1))


FRAME = pd.DataFrame(np.concatenate(SINGLE), columns=[f"d{j}" for j in range(4)])


def object_array(bags):
    array = np.empty(len(bags), dtype=object)
    array[:] = bags
    return array


# a form of the input, and the same bags as Bags
FORMS = {
    "list": (RAGGED, Bags.from_list(RAGGED)),
    "object array": (object_array(RAGGED), Bags.from_list(RAGGED)),
    "3-D array": (np.array(EQUAL), Bags.from_list(EQUAL)),
    "2-D array": (np.concatenate(SINGLE), Bags.from_list(SINGLE)),
    "data frame": (FRAME, Bags.from_list(SINGLE)),
}


def pipeline():
    return Pipeline(
        [
            ("pca", DescriptorTransformer(PCA(3, svd_solver="full"))),
            ("fisher", FisherVectorEncoder(3, random_state=0)),
            ("normalize", PowerL2Normalizer()),
            ("classify", LinearSVC(random_state=0)),
        ]
    )


GRID = {"fisher__n_components": [1, 3]}
FAST = {"cv": 3, "error_score": "raise"}


def run_search(search, X):
    search.fit(X, Y)
    assert search.n_features_in_ == 4
    scores = search.cv_results_["mean_test_score"]
    return np.concatenate([scores, search.predict(X), [search.score(X, Y)]])


def run_split(X):
    train, test, y_train, y_test = train_test_split(X, Y, stratify=Y, random_state=0)
    assert type(train) is type(X)
    return [pipeline().fit(train, y_train).score(test, y_test)]


def run_fit(estimator, X):
    return estimator.fit(X, Y).predict(X)


def run_union(X):
    union = FeatureUnion(
        [
            ("all", FisherVectorEncoder(3, random_state=0)),
            ("unit", make_pipeline(FisherVectorEncoder(2, random_state=0), PowerL2Normalizer())),
        ],
        n_jobs=2,
    )
    columns = union.fit_transform(X, Y)
    assert columns.shape == (len(Y), (3 + 2) * 9)
    return columns


TOOLS = {
    "cross_val_score": lambda X: cross_val_score(pipeline(), X, Y, **FAST),
    "GridSearchCV": lambda X: run_search(GridSearchCV(pipeline(), GRID, n_jobs=2, **FAST), X),
    "HalvingGridSearchCV": lambda X: run_search(
        HalvingGridSearchCV(pipeline(), GRID, min_resources=24, factor=2, random_state=0, **FAST), X
    ),
    "train_test_split": run_split,
    "cross_val_predict": lambda X: cross_val_predict(pipeline(), X, Y, cv=3),
    "learning_curve": lambda X: learning_curve(pipeline(), X, Y, train_sizes=[0.5, 1], **FAST)[2],
    "StackingClassifier": lambda X: run_fit(
        StackingClassifier(
            [("bags", pipeline()), ("small", pipeline().set_params(fisher__n_components=1))],
            LogisticRegression(),
            cv=3,
        ),
        X,
    ),
    "VotingClassifier": lambda X: run_fit(VotingClassifier([("bags", pipeline())], n_jobs=2), X),
    "CalibratedClassifierCV": lambda X: (
        CalibratedClassifierCV(pipeline(), cv=3).fit(X, Y).predict_proba(X)
    ),
    "OneVsRestClassifier": lambda X: run_fit(OneVsRestClassifier(pipeline()), X),
    "FeatureUnion": run_union,
}


def forms_and_dispatch():
    """Return all pairs, less those that scikit-learn itself refuses.

    Before 1.9, under array API dispatch, its tools take neither lists nor data frames,
    whatever the estimator.
    """
    refused = [] if NEW else [("list", True), ("data frame", True)]
    pairs = [(form, dispatch) for form in FORMS for dispatch in (False, True)]
    return [pair for pair in pairs if pair not in refused]


@pytest.fixture(scope="module")
def results_of_bags():
    """Results of tools on Bags, computed once for each, without dispatch."""
    known = {}

    def result(tool, form):
        X = FORMS[form][1]
        key = tool, X.lengths.tobytes()
        if key not in known:
            known[key] = TOOLS[tool](X)
        return known[key]

    return result


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("form", "dispatch"), forms_and_dispatch())
def test_every_tool_gives_for_every_form_what_it_gives_for_bags(
    tool, form, dispatch, results_of_bags
):
    expected = results_of_bags(tool, form)
    with sklearn.config_context(array_api_dispatch=dispatch):
        found = TOOLS[tool](FORMS[form][0])
    # pandas keeps columns together in memory, which sums add up in another order
    rtol = 1e-8 if form == "data frame" else 0
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_gives_the_same_for_bags_under_dispatch(tool, results_of_bags):
    expected = results_of_bags(tool, "list")
    with sklearn.config_context(array_api_dispatch=True):
        np.testing.assert_array_equal(TOOLS[tool](FORMS["list"][1]), expected)


@pytest.mark.parametrize("form", ["list", "3-D array", "2-D array"])
def test_the_pipeline_learns(form):
    scores = cross_val_score(pipeline(), FORMS[form][0], Y, **FAST)
    assert scores.mean() > (0.9 if form != "2-D array" else 0.5)


def test_a_subset_of_bags_is_fitted_as_its_own_copy_would_be():
    bags = FORMS["list"][1]
    subset = np.random.default_rng(0).permutation(len(bags))[:30]
    by_view = pipeline().fit(bags[subset], Y[subset])
    by_copy = pipeline().fit([RAGGED[i] for i in subset], Y[subset])
    np.testing.assert_array_equal(by_view.decision_function(bags), by_copy.decision_function(bags))


def test_a_search_may_choose_the_number_of_components_by_likelihood():
    search = GridSearchCV(
        DiagonalGaussianMixture(random_state=0), {"n_components": [1, 3]}, n_jobs=2, **FAST
    )
    assert search.fit(RAGGED).best_params_ == {"n_components": 3}
    assert search.score(RAGGED) > DiagonalGaussianMixture(1).fit(RAGGED).score(RAGGED)


def test_a_regressor_may_follow():
    target = np.array([bag[:, 0].mean() for bag in RAGGED])
    model = make_pipeline(FisherVectorEncoder(2, random_state=0), Ridge(1e-3))
    assert cross_val_score(model, RAGGED, target, **FAST).mean() > 0.8


def test_memory_fits_what_it_knows_only_once(tmp_path, monkeypatch):
    fits = []
    fit = FisherVectorEncoder.fit

    def counting(self, X, y=None):
        fits.append(type(X))
        return fit(self, X, y)

    monkeypatch.setattr(FisherVectorEncoder, "fit", counting)
    model = pipeline().set_params(memory=str(tmp_path))
    bags = FORMS["list"][1]
    first = clone(model).fit(bags, Y).decision_function(bags)
    other_classifier = clone(model).set_params(classify__C=0.5).fit(bags, Y)
    # the same bags, elsewhere in memory
    again = clone(model).fit(Bags.from_list(RAGGED), Y).decision_function(bags)
    assert len(fits) == 1
    np.testing.assert_array_equal(again, first)
    assert (other_classifier.decision_function(bags) != first).any()
    clone(model).fit(bags[:40], Y[:40])
    assert len(fits) == 2


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("form", FORMS)
def test_set_output_names_the_columns(form, library):
    frames = pytest.importorskip(library)
    X = FORMS[form][0]
    encoder = FisherVectorEncoder(2, random_state=0)
    plain = encoder.fit_transform(X)
    frame = clone(encoder).set_output(transform=library).fit_transform(X)
    assert isinstance(frame, frames.DataFrame)
    assert list(frame.columns) == list(encoder.get_feature_names_out())
    assert list(frame.columns[:4]) == ["weight_k0", "weight_k1", "mean_k0_d0", "mean_k0_d1"]
    np.testing.assert_array_equal(frame.to_numpy(), plain)


@pytest.mark.parametrize("form", FORMS)
def test_set_output_goes_through_a_pipeline(form):
    X = FORMS[form][0]
    plain = pipeline()[:-1].fit_transform(X)
    frame = pipeline()[:-1].set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns[2:5]) == ["weight_k2", "mean_k0_pca0", "mean_k0_pca1"]
    np.testing.assert_allclose(frame.to_numpy(), plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_a_pipeline_names_its_features(form):
    names = pipeline().fit(FORMS[form][0], Y)[:-1].get_feature_names_out()
    assert list(names[2:5]) == ["weight_k2", "mean_k0_pca0", "mean_k0_pca1"]
    assert len(names) == 3 * (2 * 3 + 1)


def test_set_output_of_a_union():
    union = FeatureUnion(
        [("a", FisherVectorEncoder(2, random_state=0)), ("b", FisherVectorEncoder(1))]
    ).set_output(transform="pandas")
    frame = union.fit_transform(RAGGED)
    assert list(frame.columns[[0, 17, 18]]) == ["a__weight_k0", "a__variance_k1_d3", "b__weight_k0"]


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("form", FORMS)
def test_sample_weights_are_routed_to_the_classifier(form):
    X = FORMS[form][0]
    weight = np.where(np.arange(len(Y)) % 5 == 0, 1e-3, 1)
    model = make_pipeline(
        FisherVectorEncoder(2, random_state=0),
        PowerL2Normalizer(),
        SVC(kernel="linear")
        .set_fit_request(sample_weight=True)
        .set_score_request(sample_weight=True),
    )
    model.fit(X, Y, sample_weight=weight)
    by_hand = SVC(kernel="linear").fit(model[:-1].transform(X), Y, sample_weight=weight)
    found = model.decision_function(X)
    np.testing.assert_array_equal(found, by_hand.decision_function(model[:-1].transform(X)))
    assert (found != model.fit(X, Y).decision_function(X)).any()
    if NEW:  # before, Pipeline.score does not pass weights on
        cross_val_score(model, X, Y, params={"sample_weight": weight}, **FAST)


@pytest.mark.usefixtures("routing")
def test_weights_are_not_taken_by_who_did_not_ask():
    model = make_pipeline(FisherVectorEncoder(2), LinearSVC())
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(RAGGED, Y, sample_weight=np.ones(len(Y)))


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("form", FORMS)
def test_groups_are_routed_to_the_splitter(form):
    groups = np.arange(len(Y)) // 12
    scores = cross_val_score(
        pipeline(),
        FORMS[form][0],
        Y,
        cv=LeaveOneGroupOut(),
        params={"groups": groups},
        error_score="raise",
    )
    assert scores.shape == (4,)


def test_a_frozen_mixture_survives_a_search():
    mixture = DiagonalGaussianMixture(2, random_state=0).fit(RAGGED)
    model = make_pipeline(FisherVectorEncoder(mixture=FrozenEstimator(mixture)), LinearSVC())
    grid = {"fishervectorencoder__include_weights": [True, False]}
    search = GridSearchCV(model, grid, n_jobs=2, **FAST).fit(FORMS["list"][1], Y)
    np.testing.assert_array_equal(search.best_estimator_[0].means_, mixture.means_)


def test_a_search_over_the_mixture_itself():
    own = {
        name: FisherVectorEncoder().get_params()[name] for name in ("max_iter", "variance_floor")
    }
    model = pipeline().set_params(
        fisher__mixture=DiagonalGaussianMixture(random_state=0, **own), classify__C=0.01
    )
    inside = GridSearchCV(model, {"fisher__mixture__n_components": [1, 2, 3]}, **FAST)
    plain = GridSearchCV(
        clone(model).set_params(fisher__mixture=None), {"fisher__n_components": [1, 2, 3]}, **FAST
    )
    scores = [s.fit(RAGGED, Y).cv_results_["mean_test_score"] for s in (inside, plain)]
    np.testing.assert_array_equal(*scores)


@pytest.fixture
def many_tasks(monkeypatch):
    """Cut even small data into many tasks; where, is decided before they are handed out."""
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 400)
    monkeypatch.setattr("skfisher.descriptors.transformer.BLOCK_NUMBERS", 4 * 256)


LONG = Bags.from_list(
    [np.random.default_rng(i).normal(i % 3, 1, size=(20 + 7 * i, 4)) for i in range(30)]
)


def everything(n_jobs, X=LONG):
    """Return all numbers that estimators with threads of their own compute."""
    scale = DescriptorTransformer(StandardScaler(), n_jobs=n_jobs)
    encoder = FisherVectorEncoder(5, random_state=0, max_iter=5, n_jobs=n_jobs)
    online = DiagonalGaussianMixture(5, random_state=0, max_iter=5, batch_size=7, n_jobs=n_jobs)
    online = FisherVectorEncoder(mixture=online)
    mixture = DiagonalGaussianMixture(4, random_state=0, max_iter=5, tol=0, n_jobs=n_jobs)
    parts = [
        scale.fit_transform(X).values,
        encoder.fit_transform(X),
        encoder.means_,
        encoder.variances_,
        np.array(encoder.mixture_.lower_bounds_),
        online.fit_transform(X),
        encoder.partial_fit(X).transform(X),
        mixture.fit(X).predict_proba(X),
        mixture.score_samples(X),
        mixture.weights_,
    ]
    return np.concatenate([part.ravel() for part in parts])


@pytest.mark.usefixtures("many_tasks")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_not_a_bit_depends_on_threads(dtype):
    X = Bags((20 * (LONG.values + 5)).astype(dtype), LONG.starts, LONG.stops)
    one = everything(1, X)
    assert np.isfinite(one).all()
    for n_jobs in (None, 2, -1):
        np.testing.assert_array_equal(everything(n_jobs, X), one)


@pytest.mark.usefixtures("many_tasks")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_not_a_bit_depends_on_the_backend(backend):
    one = everything(1)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        np.testing.assert_array_equal(everything(None), one)
    with joblib.parallel_config(backend=backend):
        np.testing.assert_array_equal(everything(2), one)


@pytest.mark.parametrize("backend", ["multiprocessing", "loky", "threading"])
def test_backends_that_cannot_give_results_one_by_one_work_too(backend):
    # Ray's is derived from multiprocessing's
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = list(map_in_order(abs, [(-i,) for i in range(9)], n_jobs=None))
    assert found == list(range(9))


def test_workers_in_other_processes_share_descriptors_by_memory_map():
    values = np.zeros((2**18, 1))  # 2 MiB: joblib maps from 1 MiB on
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert list(map_in_order(is_mapped, [(values,)] * 3, n_jobs=None)) == [True] * 3


@pytest.mark.usefixtures("many_tasks")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_threads_inside_parallel_searches():
    model = make_pipeline(
        FisherVectorEncoder(3, random_state=0, max_iter=3, n_jobs=2), KNeighborsClassifier(1)
    )
    y = np.arange(len(LONG)) % 3
    outer = cross_val_predict(model, LONG, y, cv=3, n_jobs=2, method="predict_proba")
    plain = cross_val_predict(
        model.set_params(fishervectorencoder__n_jobs=None), LONG, y, cv=3, method="predict_proba"
    )
    np.testing.assert_array_equal(outer, plain)


def test_positions_before_an_encoder():
    # only the order in a bag tells the classes apart
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    bags = [np.sort(rng.normal(size=(20, 1)), axis=0)[:: 1 - 2 * label] for label in y]
    model = make_pipeline(
        PositionAppender(3.5), FisherVectorEncoder(2, random_state=0), LinearSVC()
    )
    assert cross_val_score(model, bags, y, **FAST).mean() > 0.95
    assert cross_val_score(model[1:], bags, y, **FAST).mean() < 0.7
