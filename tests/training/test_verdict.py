"""What is said of a model after training, and which epoch is the best: NaN never wins."""

import numpy as np
import pytest

from skfisher.training.state import TrainingState
from skfisher.training.verdict import Verdict, fault_of

SOUND = Verdict(score=0.9, loss=0.2, weight=0.5)


def test_a_model_that_is_no_worse_has_no_fault():
    assert fault_of(SOUND, SOUND) is None
    assert fault_of(SOUND, SOUND._replace(score=0.85, loss=0.3, weight=0.1)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 0.7}, "score of the last linear model is 0.7, that of baseline_ 0.9"),
        ({"loss": 0.5}, "loss of the last linear model is 0.5, that of baseline_ 0.2"),
        ({"loss": np.nan}, "loss of the last linear model is nan"),
        ({"loss": np.inf}, "loss of the last linear model is inf"),
        ({"weight": 1e-5}, "smallest weight of the mixture is 1e-05"),
    ],
)
def test_faults_are_named(change, words):
    assert words in fault_of(SOUND, SOUND._replace(**change))


def test_what_has_no_weights_or_no_score_has_no_fault():
    unknown = SOUND._replace(score=np.nan, weight=np.nan)
    assert fault_of(unknown, unknown) is None


def test_an_epoch_of_nan_is_never_the_best():
    state = TrainingState(0, {}, [], best=["start"], best_loss=0.5)
    state = state.advanced([], 1, np.nan).advanced([], 2, np.inf)
    assert state.best == ["start"]
    assert state.n_waited == 2
    assert state.advanced([], 3, 0.4).best_iter == 3
