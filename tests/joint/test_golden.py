"""Joint models are those of before: changes of the code that trains them leave the results.

`python -m tests.joint.test_golden` writes what is found now, after a change that was meant.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from skfisher import Bags, JointFisherSVC
from skfisher.datasets import load_digits_patches

PATH = Path(__file__).with_name("golden_models.json")
N_BAGS = 60
CASES = {
    "default": JointFisherSVC(2, max_iter=2, random_state=0),
    "natural gradient, sigmoid": JointFisherSVC(
        2, max_iter=2, solver="natural", weight_map="sigmoid", random_state=0
    ),
    "reduced linear map, no weights": JointFisherSVC(
        2, max_iter=2, feature_map="linear", n_features_out=4, include_weights=False, random_state=0
    ),
    "dual, balanced, subsets": JointFisherSVC(
        2, max_iter=2, loss="dual", class_weight="balanced", max_descriptors=20, random_state=0
    ),
    "a model for each class": JointFisherSVC(
        2, max_iter=2, multi_class="ovr", schedule="constant", solver="sgd", random_state=0
    ),
    "Sydorov et al.": JointFisherSVC.sydorov(2, max_iter=3, random_state=0),
}


def found(estimator):
    """Return what is kept of a model: numbers that any change of training would move."""
    digits = load_digits_patches(patch_size=3)
    bags = digits.data[:N_BAGS].pack()
    X = Bags(bags.values.astype(np.float64) / 16, bags.starts, bags.stops)
    y = digits.target[:N_BAGS] % 3
    model = estimator.fit(X, y)
    kept = {
        "loss": model.history_["loss"],
        "gradient_norm": model.history_["gradient_norm"],
        "weights": model.weights_.ravel().tolist(),
        "means": model.means_.ravel().tolist()[:18],
        "variances": model.variances_.ravel().tolist()[:18],
        "encoding": model.transform(X[:1]).ravel().tolist()[:20],
    }
    if model.map_weight_ is not None:
        kept["map_weight"] = model.map_weight_.ravel().tolist()[:18]
    return kept


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES)
def test_models_are_those_of_before(case):
    expected = json.loads(PATH.read_text("utf-8"))[case]
    result = found(CASES[case])
    assert result.keys() == expected.keys()
    for name, values in result.items():
        # rounding, by another kernel of BLAS, grows to 1e-9 in these few epochs
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


if __name__ == "__main__":
    models = {case: found(estimator) for case, estimator in CASES.items()}
    PATH.write_text(json.dumps(models, indent=1) + "\n", "utf-8")
