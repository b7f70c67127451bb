"""What estimators show of themselves: names of features, data frames, pages in notebooks."""

import inspect

import pytest

from skfisher import Bags

from .test_all_or_nothing import CASES, Y, network

pytestmark = pytest.mark.filterwarnings("ignore")  # of few iterations

# One case of each class; others of it differ in how they are fitted.
CLASSES = {name: case for name, case in CASES.items() if "," not in name}


def made(name):
    """Return a new estimator, and samples for it."""
    make, samples, *_ = CLASSES[name]
    X = samples(4)
    return make(network(X) if inspect.signature(make).parameters.keys() == {"n"} else None), X


TRANSFORMERS = [name for name in CLASSES if hasattr(made(name)[0], "transform")]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_output_has_the_names_of_its_features(name, library):
    frames = pytest.importorskip(library)
    estimator, X = made(name)
    output = estimator.set_output(transform=library).fit(X, Y).transform(X)
    names = list(estimator.get_feature_names_out())
    assert len(set(names)) == len(names) > 0
    if isinstance(output, Bags):
        assert list(output.feature_names) == names
        assert output.n_features == len(names)
    else:
        assert isinstance(output, frames.DataFrame)
        assert list(output.columns) == names


@pytest.mark.parametrize("name", CLASSES)
def test_a_notebook_shows_the_parameters_before_and_after_a_fit(name):
    pytest.importorskip("sklearn", minversion="1.7")  # which shows all of them
    estimator, X = made(name)
    for shown in (estimator._repr_html_(), estimator.fit(X, Y)._repr_html_()):
        assert type(estimator).__name__ in shown
        for parameter in estimator.get_params(deep=False):
            assert parameter in shown
