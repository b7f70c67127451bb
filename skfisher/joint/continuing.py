"""What a fitted model and unfinished training depend on, and whether training can go on."""

import numpy as np

from skfisher.layers.layer import n_positions_of

__all__ = ["check_continues", "course_of", "encoder_form", "form_of"]

# Parameters that a fitted model cannot leave: they say what its numbers mean.
FORM = ("feature_map", "map_scale", "whiten", "power", "power_eps")
# What those are where an estimator has no such parameter.
FORM_WITHOUT = {"center": False, "multi_class": "shared"}
# Those of an encoder that say how work is done.
WORK = ("n_jobs", "device", "random_state", "verbose")


def form_of(estimator):
    """Return the parameters that a fitted model cannot leave."""
    form = {name: getattr(estimator, name) for name in FORM}
    form |= {name: getattr(estimator, name, value) for name, value in FORM_WITHOUT.items()}
    return form | estimator._pooling_form()


def encoder_form(encoder):
    """Return the class of an encoder and the parameters that say what its encodings mean.

    Estimators among them stand for themselves by their class and their own parameters.
    """
    form = {"encoder": type(encoder).__name__}
    for name, value in encoder.get_params().items():
        if name.rpartition("__")[2] in WORK:
            continue
        if hasattr(value, "get_params"):
            value = type(value).__name__
        form[f"encoder__{name}"] = value.tolist() if isinstance(value, np.ndarray) else value
    return form


def course_of(estimator, train, **more):
    """Return the parameters that descent cannot change on its way, and `more` of that kind."""
    course = {"solver": estimator.solver, "train": train}
    if hasattr(estimator, "weight_map"):
        course["weight_map"] = estimator.weight_map
    return course | more


def check_continues(estimator, course=None):
    """Check that training can go on from what was fitted.

    Parameters
    ----------
    estimator : JointEstimator
        Fitted.
    course : dict, optional
        What `course_of` says now, where an unfinished descent goes on.

    Raises
    ------
    ValueError
        If a parameter has changed that the model or the descent depends on.
    """
    n_out = estimator.n_features_out
    now = form_of(estimator)
    n_features = estimator.n_features_in_ - n_positions_of(estimator._pooling())
    now["n_features_out"] = n_features if n_out is None else n_out
    found = estimator._form | {"n_features_out": estimator._n_mapped}
    if course is not None:
        now |= course
        found |= estimator._training.course
    for name, value in found.items():
        if now.get(name) != value:
            raise ValueError(
                f"Training goes on from a fit with {name}={value!r}, but now it is "
                f"{now.get(name)!r}: go back to that, or call fit with warm_start=False."
            )
