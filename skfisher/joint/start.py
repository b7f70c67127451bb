"""The frozen start of joint training: whitening, first map, pooling and linear model."""

import copy

import numpy as np
from sklearn import get_config
from sklearn.utils import check_random_state

from skfisher._compat import copy_without_callbacks
from skfisher.arrays.libraries import (
    device_of,
    float_dtype,
)
from skfisher.bags.bags import Bags
from skfisher.bags.cells import without_positions
from skfisher.bags.sampling import draw_rows
from skfisher.contract.extremes import check_encodings
from skfisher.joint.continuing import form_of
from skfisher.joint.prediction import FittedJointModel
from skfisher.layers.chain import map_descriptors
from skfisher.layers.encode import encode_bags
from skfisher.layers.layer import n_positions_of
from skfisher.layers.normalization import Centering
from skfisher.layers.whitening import principal_axes, whiten_bags
from skfisher.parallel.units import Where, held

__all__ = ["JointStart", "resampled"]

MOST_COPIES = 10
SEEDS = ("rows", "map", "mixture", "svm", "descent", "split")


class JointStart(FittedJointModel):
    """Fits the frozen model that training begins with."""

    def _forget_encoder(self):
        """Forget the encoder of a fit before, which another one may stand in the place of."""

    def _fit_whitening(self, bags):
        """Fix the coordinates of descriptors and every seed; return the map to start from."""
        rng = check_random_state(self.random_state)
        draws = rng.randint(np.iinfo(np.int32).max, size=len(SEEDS)).tolist()
        seeds = dict(zip(SEEDS, draws, strict=True))
        n_positions = n_positions_of(self._pooling())
        n_features = bags.n_features - n_positions
        bags = without_positions(bags, n_positions)
        mean, axes = principal_axes(bags, equal=self.whiten, where=Where(self.n_jobs, self.device))
        n_out = n_features if self.n_features_out is None else self.n_features_out
        first_map, squash, unmix = self._first_map(n_features, n_out, seeds["map"])
        axes = self.map_scale * axes
        if self.feature_map == "identity":
            axes = axes[:, :n_out]
        self._assign(
            center_=mean, axes_=axes, _squash=squash, _unmix=unmix, _seeds=seeds, _n_mapped=n_out,
            _form=form_of(self),
        )  # fmt: skip
        return first_map

    def _assign(self, **attributes):
        """Set attributes at once: an interrupt never leaves those of two epochs."""
        vars(self).update(attributes)

    def _first_map(self, n_features, n_out, seed):
        """Return the parameters of the map before training, and what undoes it beforehand."""
        if self.feature_map == "identity":
            return {}, False, None
        squash, unmix = self.feature_map == "tanh", None
        if self.map_init == "identity":
            weight = np.eye(n_out, n_features)
        else:  # Glorot and Bengio (2010)
            bound = np.sqrt(6 / (n_features + n_out))
            weight = np.random.default_rng(seed).uniform(-bound, bound, size=(n_out, n_features))
            if self.map_init == "xavier":
                unmix = np.linalg.inv(weight)
            else:
                squash = False
        return {"map_weight": weight, "map_bias": np.zeros(n_out)}, squash, unmix

    def _prepared(self, *problems):
        """Return the chain and the problems, their bags whitened once and for all if they fit."""
        n_bytes = self.axes_.shape[1] * sum(
            problem.bags.n_descriptors * float_dtype(problem.bags.dtype).itemsize
            for problem in problems
            if problem is not None
        )
        if n_bytes > get_config()["working_memory"] * 2**20 / 4:
            return self._chain(), *problems
        return self._chain(whitened=True), *(self._whitened(problem) for problem in problems)

    def _whitened(self, problem):
        if problem is None:
            return None
        where = Where(self.n_jobs, self.device)
        bags = whiten_bags(problem.bags, self._whitening(self._pooling()), where)
        return problem._replace(bags=held(bags, where))

    def _freeze(self, chain, problem, first_map, task, index):
        """Set every attribute to that of the frozen model.

        `index` are the bags to look at without labels, as `resampled` has it.
        """
        self._keep_task(task)
        parameters = first_map | self._first_pooling(chain, problem.bags[index], first_map)
        with np.errstate(over="ignore", invalid="ignore"):
            encodings = self._centered(chain, parameters, problem.bags, index)
        coef, intercept = self._fit_head(encodings, problem)
        models = [
            parameters | {"coef": coef[c], "intercept": intercept[c]}
            for c in self._columns(len(coef))
        ]
        frozen = self._attributes(chain, models)
        frozen |= {"history_": {}, "n_iter_": 0, "best_iter_": 0, "_training": None}
        frozen["_form"] = form_of(self) | self._pooling_form(frozen)
        self._assign(**frozen, baseline_=self._frozen_copy(frozen))

    def _first_pooling(self, chain, bags, first_map):
        """Return the parameters of the pooling layer, from a sample of the mapped descriptors."""
        n_rows, seed = chain.pooling.n_start_rows, self._seeds["rows"]
        if chain.pools_whole_bags:
            order = np.random.default_rng(seed).permutation(len(bags))
            n_bags = 1 + np.searchsorted(bags.lengths[order].cumsum(), n_rows)
            sample = bags[np.sort(order[:n_bags])].pack()
        else:
            rows, _ = draw_rows(bags.starts, bags.stops, n_rows, seed)
            with device_of(bags.values):
                sample = Bags.from_lengths(bags.values[rows], [len(rows)])
        sample = map_descriptors(chain, first_map, sample)
        return chain.pooling.start(sample, self._seeds["mixture"])

    def _centered(self, chain, parameters, bags, index):
        """Return the encodings of the frozen model, and put what centres them in `parameters`."""
        if not self._form["center"]:
            return encode_bags(chain, parameters, bags)
        parameters |= {"encoding_mean": np.zeros(chain.n_out(parameters))}
        parameters |= {"encoding_scale": np.array(1.0)}
        encodings = encode_bags(chain, parameters, bags)
        parameters |= Centering().start(encodings[index])
        return Centering().apply(Centering().prepare(parameters, np.float64), encodings)

    def _fit_head(self, encodings, problem):
        """Return coefficients and intercepts of a linear model of encodings."""
        check_encodings(encodings)
        return self._task().fit(encodings, problem)

    def _frozen_copy(self, attributes):
        """Return the estimator with attributes as they are to be before training."""
        frozen = copy_without_callbacks(self)
        vars(frozen).pop("baseline_", None)  # of the fit before
        # Copies, which unlike clones keep what was fitted of an estimator that was given.
        parameters = copy.deepcopy(self.get_params(deep=False))
        frozen.set_params(**{**parameters, "max_iter": 0, "warm_start": False})
        frozen._assign(**attributes)
        return frozen


def resampled(sample_weight):
    """Return an index of bags that has each as often as its weight says, as nearly as it can.

    Whole weights are followed exactly, up to `MOST_COPIES` a bag on average.
    """
    if sample_weight is None:
        return slice(None)
    n_bags, ends = len(sample_weight), np.cumsum(sample_weight)
    n_drawn = min(max(n_bags, round(float(ends[-1]))), MOST_COPIES * n_bags)
    places = (np.arange(n_drawn) + 0.5) * (ends[-1] / n_drawn)
    return np.minimum(np.searchsorted(ends, places), n_bags - 1)
