"""Finite in, finite out, or an error that says what to do: every estimator at every scale.

Scales run from denormal numbers to the largest, in both dtypes; of all numbers, of one feature, of
one number, and as an offset of all.
"""

import functools
import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from skfisher import (
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DeepFisherEncoder,
    DenseHead,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    GradientFeatureKernel,
    GradientFeatureMap,
    ImagePatches,
    JointClassifier,
    JointFisherSVC,
    JointRegressor,
    LinearSDCA,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureSecondOrderPooling,
    PositionAppender,
    PowerL2Normalizer,
    SecondOrderPooling,
    VLADEncoder,
)
from skfisher.descriptors import deltas, mfcc

RNG = np.random.default_rng(0)
BAGS = [RNG.normal(size=(t, 4)) for t in (9, 6, 7, 8, 6, 9, 12, 5)]
Y = np.arange(8) % 2
HEAD = DenseHead([RNG.normal(size=(4, 5)), RNG.normal(size=(5, 20))])
JOINT = {"max_iter": 2, "random_state": 0}
OF_ROWS = ["score_samples", "predict_proba", "predict", "score", "aic", "bic"]
DECIDE = ["decision_function", "predict"]

OF_BAGS = {
    "mixture": (DiagonalGaussianMixture(2, random_state=0), OF_ROWS),
    "online": (DiagonalGaussianMixture(2, batch_size=3, max_iter=5, random_state=0), OF_ROWS),
    "encoder": (FisherVectorEncoder(2, random_state=0), ["transform"]),
    "gated moments": (MixtureSecondOrderPooling(2, random_state=0), ["transform"]),
    "gate": (GatedSecondOrderPooling(2, random_state=0), ["transform"]),
    "energies": (LowRankBilinearPooling(2), ["transform"]),
    "sketch": (CompactBilinearPooling(8, random_state=0), ["transform"]),
    "sketch, kernel": (CompactBilinearPooling(8, kernel="rbf", random_state=0), ["transform"]),
    "VLAD": (VLADEncoder(2, random_state=0), ["transform"]),
    "VLAD, plain": (VLADEncoder(2, moments=2, normalize=None, random_state=0), ["transform"]),
    "VLAD, hard": (VLADEncoder(2, assignment="hard", random_state=0), ["transform"]),
    "bag of words": (BagOfWordsEncoder(2, random_state=0), ["transform"]),
    "learned aggregation": (
        BagOfWordsEncoder(2, assignment="soft", metric="diagonal", random_state=0),
        ["transform"],
    ),
    "deep Fisher": (DeepFisherEncoder((2, 2), cell=2, random_state=0), ["transform"]),
    "mean": (MeanPooling(), ["transform"]),
    "mean and deviation": (MeanPooling("mean_std"), ["transform"]),
    "maximum": (MeanPooling("max"), ["transform"]),
    "second order": (SecondOrderPooling(), ["transform"]),
    "logarithm": (SecondOrderPooling("covariance", function="log"), ["transform"]),
    "B-CNN": (SecondOrderPooling.bcnn(), ["transform"]),
    "iSQRT": (SecondOrderPooling.isqrt_cov(n_components=2), ["transform"]),
    "second order, joint": (
        JointClassifier(SecondOrderPooling(n_components=2), **JOINT),
        ["transform", *DECIDE],
    ),
    "joint": (JointFisherSVC(2, **JOINT), ["transform", *DECIDE]),
    "linear": (JointFisherSVC(2, feature_map="linear", **JOINT), ["transform", *DECIDE]),
    "not whitened": (
        JointFisherSVC(2, feature_map="identity", whiten=False, **JOINT),
        ["transform", *DECIDE],
    ),
    "line search": (JointFisherSVC.sydorov(2, **JOINT), ["transform", *DECIDE]),
    "stopped early": (
        JointFisherSVC(2, multi_class="ovr", early_stopping=True, validation_fraction=0.3, **JOINT),
        DECIDE,
    ),
    "classifier": (JointClassifier(FisherVectorEncoder(2), **JOINT), ["transform", *DECIDE]),
    "regressor": (JointRegressor(FisherVectorEncoder(2), **JOINT), ["transform", "predict"]),
    "transformer": (DescriptorTransformer(PCA(2)), ["transform"]),
    "positions": (PositionAppender(), ["transform"]),
}
OF_TABLES = {
    "normalizer": (PowerL2Normalizer(), ["transform"]),
    "normalizer of parts": (PowerL2Normalizer(power=0.3, blocks=[0, 0, 1, 1]), ["transform"]),
    "LinearSDCA": (LinearSDCA(random_state=0), DECIDE),
    "hinge": (LinearSDCA(loss="hinge", random_state=0), DECIDE),
    "kernel": (GradientFeatureKernel(HEAD), ["transform"]),
    "map": (GradientFeatureMap(HEAD, n_components=8, random_state=0), ["transform"]),
}
ALL = OF_BAGS | OF_TABLES
SCALES = [1e-320, 1e-160, 1e-42, 1e-20, 1.0, 1e8, 1e20, 1e38, 1e155, 1e300]
CLEAR = (
    r"[Rr]escale|Subtract what|divide it, so that|Drop it, or pass float64|"
    r"The output of the network for X\[\d\] is not finite"
)


def scaled(x, scale, where):
    x = x.copy()
    if where == "all":
        return x * scale
    if where == "an offset":
        return x + scale
    x[slice(1) if where == "a number" else slice(None), 1] *= scale
    return x


def inputs(name, dtype):
    """Yield what is scaled how, of one dtype, where it holds that."""
    for where in ("all", "a feature", "a number", "an offset"):
        for scale in SCALES:
            with np.errstate(over="ignore"):
                bags = [scaled(bag, scale, where).astype(dtype) for bag in BAGS]
            if all(np.isfinite(bag).all() for bag in bags):
                yield (
                    f"{where}, {scale}",
                    bags if name in OF_BAGS else np.stack([b[0] for b in bags]),
                )


def finite_or_refused(call, case):
    """Return what a call returns, all of it finite, or None after an error that is clear."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("ignore", module="sklearn")
        try:
            result = call()
        except RuntimeWarning as warning:
            raise AssertionError(case) from warning
        except ValueError as fault:
            result, error = None, fault
        else:
            error = None
    if error is not None:
        assert not isinstance(error, np.linalg.LinAlgError), case
        assert re.search(CLEAR, str(error)), (case, str(error))
        assert "nan" not in str(error), (case, str(error))
        return None
    assert are_finite(result), case
    return result


def are_finite(result):
    """Tell whether an array is finite, or bags, or all fitted attributes of an estimator."""
    if hasattr(result, "get_params"):
        fitted = [value for name, value in vars(result).items() if name.endswith("_")]
        return all(are_finite(value) for value in fitted if isinstance(value, np.ndarray | float))
    values = np.asarray(result.values if isinstance(result, Bags) else result)
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ALL)
def test_fits_at_any_scale(name, dtype):
    estimator, methods = ALL[name]
    fitted = 0
    for case, X in inputs(name, dtype):
        model = finite_or_refused(functools.partial(clone(estimator).fit, X, Y), case)
        if model is not None:
            fitted += 1
            for method in methods:
                call = functools.partial(getattr(model, method), X)
                finite_or_refused(call, (case, method))
    assert fitted >= 15


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ALL)
def test_sound_models_meet_any_scale(name, dtype):
    estimator, methods = ALL[name]
    cases = list(inputs(name, dtype))
    sound = dict(cases)["all, 1.0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = clone(estimator).fit(sound, Y)
    for case, X in cases:
        for method in methods:
            finite_or_refused(functools.partial(getattr(model, method), X), (case, method))


def test_a_fill_value_is_named_by_all_sisters():
    spoilt = [*BAGS[:-1], scaled(BAGS[-1], 1e200, "a number")]
    for name in ("mixture", "encoder", "linear", "not whitened", "line search"):
        estimator, methods = ALL[name]
        model = clone(estimator).fit(BAGS, Y)
        for method in methods:
            with pytest.raises(ValueError, match=r"X\[7\] has a descriptor .* a fill value\?"):
                getattr(model, method)(spoilt)


def test_bags_to_validate_with_are_named():
    model = JointFisherSVC(2, feature_map="linear", **JOINT)
    spoilt = [*BAGS[:3], BAGS[3] * 1e200]
    with pytest.raises(ValueError, match=r"X_val\[3\] has a descriptor .* a fill value\?"):
        model.fit(BAGS, Y, X_val=spoilt, y_val=Y[:4])


@pytest.mark.parametrize("scale", SCALES)
def test_images_and_sounds_at_any_scale(scale):
    image, sound = RNG.normal(size=(24, 24)) * scale, RNG.normal(size=4000) * scale
    functions = {
        "patches": lambda: ImagePatches(patch_size=8).fit_transform([image]),
        "mfcc": lambda: mfcc(sound, 8000),
        "deltas": lambda: deltas(np.outer(sound[:50], np.ones(3))),
    }
    for name, function in functions.items():
        finite_or_refused(function, name)


@pytest.mark.parametrize("step", [1e3, 1e150, 1e300])
def test_a_line_search_never_takes_a_step_to_nan(step):
    model = JointFisherSVC.sydorov(2, max_iter=3, learning_rate=step, random_state=0)
    assert finite_or_refused(functools.partial(model.fit, BAGS, Y), step) is model
    losses = model.history_["loss"]
    assert np.isfinite(losses).all()
    assert max(losses) <= losses[0]


@pytest.mark.parametrize("solver", ["adam", "sgd", "natural"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_descent_stops_before_nan(solver):
    model = JointFisherSVC(
        2, feature_map="linear", max_iter=5, solver=solver, learning_rate=1e200, clip_norm=None,
        random_state=0,
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning, match="was no longer finite"):
        model.fit(BAGS, Y)
    assert are_finite(model)
    assert np.isfinite(model.decision_function(BAGS)).all()
