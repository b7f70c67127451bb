"""The phases of joint training: a frozen start, descent on everything, a last linear SVM."""

import copy
import time
from dataclasses import replace

import numpy as np
from sklearn import get_config
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from skfisher.arrays.libraries import (
    cuda_devices,
    device_of,
    float_dtype,
    is_cupy,
    to_host,
    work_context,
)
from skfisher.bags.bags import Bags
from skfisher.codebooks.em import draw_rows
from skfisher.codebooks.fitting import INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT
from skfisher.codebooks.mixture import DiagonalGaussianMixture, is_fitted_mixture, mixture_of
from skfisher.codebooks.moments import global_moments
from skfisher.contract.labels import Targets
from skfisher.joint.prediction import FittedJointModel
from skfisher.joint.settings import course_of, form_of, recipe_of
from skfisher.layers.chain import encode_bags
from skfisher.layers.whitening import principal_axes, whiten_bags
from skfisher.parallel.gpus import hold
from skfisher.parallel.units import Where
from skfisher.process_state import ignoring
from skfisher.svm.liblinear import fit_columns
from skfisher.training.epochs import Diverged, Model, mean_loss, run_epoch
from skfisher.training.verdict import decide, fault_of, judge, score_of
from skfisher.warning import warn_caller

__all__ = ["JointFitter"]

# From clusters by k-means. More of them raise the likelihood, leave some components light and
# narrow, and encode worse: benchmarks/results has the figures.
EM_ITERATIONS = 2
# The smallest weight a mixture starts training with, which is the smallest that EM leaves.
LEAST_WEIGHT = 1e-12


class JointFitter(FittedJointModel):
    """Fits the attributes of a jointly trained classifier from its parameters."""

    # Phase 0: the coordinates of descriptors, and the map that keeps them as they are.

    def _fit_whitening(self, bags):
        """Fix the coordinates of descriptors and every seed; return the map to start from."""
        rng = check_random_state(self.random_state)
        names = ("rows", "map", "mixture", "svm", "descent", "split")
        draws = rng.randint(np.iinfo(np.int32).max, size=len(names)).tolist()
        seeds = dict(zip(names, draws, strict=True))
        mean, axes = principal_axes(bags, equal=self.whiten, where=Where(self.n_jobs, self.device))
        first_map, squash, unmix = self._first_map(bags.n_features, seeds["map"])
        axes = self.map_scale * axes
        if self.feature_map == "identity":
            axes = axes[:, : self.n_features_out]
        self.__dict__.update(
            center_=mean, axes_=axes, _squash=squash, _unmix=unmix, _floor=None, _seeds=seeds,
            _form=form_of(self),
        )  # fmt: skip
        return first_map

    def _first_map(self, n_features, seed):
        """Return the parameters of the map before training, and what undoes it beforehand."""
        if self.feature_map == "identity":
            return {}, False, None
        n_out = n_features if self.n_features_out is None else self.n_features_out
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
        bags = whiten_bags(problem.bags, self._whitening(), Where(self.n_jobs, self.device))
        devices = cuda_devices(self.device, bags.values)
        if len(devices) == 1 and not is_cupy(bags.values):  # to be read there in every epoch
            bags = Bags(hold(bags.values, devices[0]), bags.starts, bags.stops)
        return problem._replace(bags=bags)

    # Phase 1: mixture and SVM, nothing of it trained together.

    def _freeze(self, chain, problem, first_map, targets):
        """Set every attribute to that of the frozen model; return the chain with its floor."""
        self._kind, self.classes_ = targets.kind, targets.classes
        mixture, moments = self._first_mixture(chain, problem.bags, first_map)
        # Below the floor of EM, as a variance at the floor itself could not grow again.
        floor = moments.floor(self.variance_floor / 10)
        self._floor = np.minimum(floor, mixture.variances.min(axis=0) / 2)
        self._global_variance = moments.floor(1.0)
        chain = replace(chain, floor=self._floor)
        parameters = first_map | chain.free(mixture)
        coef, intercept = self._fit_svm(encode_bags(chain, parameters, problem.bags), problem)
        models = [
            parameters | {"coef": coef[c], "intercept": intercept[c]}
            for c in self._columns(len(coef))
        ]
        frozen = self._attributes(chain, models)
        frozen |= {"history_": {}, "n_iter_": 0, "best_iter_": 0, "_training": None}
        vars(self).update(frozen, baseline_=self._frozen_copy(frozen))
        return chain

    def _first_mixture(self, chain, bags, first_map):
        """Return the mixture of the mapped descriptors before training, and their moments."""
        n_rows = max(INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT * self.n_components)
        rows, _ = draw_rows(bags.starts, bags.stops, n_rows, self._seeds["rows"])
        with device_of(bags.values):
            sample = Bags.from_lengths(bags.values[rows], [len(rows)])
        chain = chain.on(0, sample.values)
        with work_context(chain.device, sample.values):
            _, sample = chain.mapped(first_map, sample)
            sample = Bags(to_host(sample.values), sample.starts, sample.stops)
        moments = global_moments(sample)
        mixture = self.mixture
        if mixture is None:
            mixture = DiagonalGaussianMixture(
                self.n_components,
                max_iter=EM_ITERATIONS,
                variance_floor=self.variance_floor,
                random_state=self._seeds["mixture"],
            )
        elif is_fitted_mixture(mixture):
            mixture = mixture_of(mixture)
            # free parameters know no weight of 0
            return mixture._replace(weights=np.maximum(mixture.weights, LEAST_WEIGHT)), moments
        ours = isinstance(mixture, DiagonalGaussianMixture)
        fit = ignoring(ConvergenceWarning)(clone(mixture).fit)  # a start need not be an optimum
        return mixture_of(fit(sample if ours else sample.values)), moments

    @property
    def _svm_loss(self):
        return "hinge" if self.loss == "hinge" else "squared_hinge"

    def _fit_svm(self, encodings, problem):
        return fit_columns(
            encodings, problem.signs, problem.weights,
            C=self.C, loss=self._svm_loss,
            seed=self._seeds["svm"], n_jobs=self.n_jobs,
        )  # fmt: skip

    def _frozen_copy(self, attributes):
        """Return the estimator with attributes as they are, or are to be, before training."""
        # Copies, which unlike clones keep what was fitted of a mixture that was given.
        parameters = copy.deepcopy(self.get_params(deep=False))
        frozen = type(self)(**{**parameters, "max_iter": 0, "warm_start": False})
        attributes = vars(self) | attributes
        fitted = {name: value for name, value in attributes.items() if name.endswith("_")}
        fitted.pop("baseline_", None)
        private = ("_squash", "_unmix", "_floor", "_kind", "_seeds", "_fit_on_bags")
        private += ("_global_variance", "_training", "_form")
        vars(frozen).update(fitted, **{name: attributes[name] for name in private})
        frozen.set_output(**getattr(self, "_sklearn_output_config", {}))
        return frozen

    # Phase 2: descent on everything that is to be trained.

    def _descend(self, chain, problem, validation, progress, given):
        """Train until the last epoch, or until validation, a callback or a number says stop."""
        training = self._training
        if training is not None and training.get("descended"):
            return  # all that an interrupt has left to do is the last SVM
        if training is None:
            seed = self._seeds["descent"]
        else:  # other batches after the end, the same again after an interrupt
            seed = training["seed"] + training["finished"]
        recipe = recipe_of(self, len(problem.bags), seed)
        if training is None or training["finished"]:
            training = self._begin_training(chain, recipe, problem, validation, given)
        models = [Model(*model) for model in training["models"]] or [
            recipe.start(parameters) for parameters in training["start"]
        ]
        for epoch in range(training["epoch"], self.max_iter):
            if self.early_stopping and training["waited"] >= self.n_iter_no_change:
                break
            step = progress.subcontext(task_name="epoch")
            step.call_on_fit_task_begin(estimator=self)
            began = time.perf_counter()
            results = self._epoch(chain, recipe, models, problem, epoch)
            if results is None:
                step.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict)
                break
            models = [result.model for result in results]
            record = self._record(chain, recipe, results, validation)
            record["seconds"] = time.perf_counter() - began
            training = self._advanced(training, models, epoch + 1, record)
            self._keep(chain, results, record, training)
            if self.verbose:
                values = ", ".join(f"{name} {value:.4g}" for name, value in record.items())
                print(f"{type(self).__name__}: epoch {epoch + 1} of {self.max_iter}: {values}")
            if step.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict):
                break
        self._end_training(chain, training)

    def _epoch(self, chain, recipe, models, problem, epoch):
        """Run an epoch of every model; return None, with a warning, if a number is not finite."""
        columns = self._columns(problem.signs.shape[1])
        try:
            return [
                run_epoch(chain, recipe, model, problem.columns(c), epoch)
                for model, c in zip(models, columns, strict=True)
            ]
        except Diverged as fault:
            warn_caller(
                f"In epoch {epoch + 1} {fault} was no longer finite. Training stopped with the "
                f"parameters of epoch {epoch}: lower learning_rate, or clip_norm.",
                ConvergenceWarning,
            )

    def _keep(self, chain, results, record, training):
        """Set every attribute to its value after an epoch."""
        history = {  # an entry an epoch, whatever was measured in it
            name: [*self.history_.get(name, [np.nan] * self.n_iter_), record.get(name, np.nan)]
            for name in self.history_ | record
        }
        # One assignment: an interrupt never leaves parameters of two epochs.
        self.__dict__.update(
            self._attributes(chain, [result.model.parameters for result in results]),
            history_=history,
            n_iter_=self.n_iter_ + 1,
            best_iter_=self.n_iter_ + 1,
            _training=training,
        )

    def _pass_once(self, chain, problem):
        """Train for one epoch on bags that are not all there are."""
        training = self._training
        if training is None or "n_seen" not in training:  # descent on all bags has another rate
            seed = self._seeds["descent"] if training is None else training["seed"] + 1
            training = {"seed": seed, "finished": True, "models": [], "n_seen": 0}
            training["course"] = course_of(self)
        n_seen = training["n_seen"] + len(problem.bags)
        recipe = recipe_of(self, len(problem.bags), training["seed"], n_seen=n_seen)
        # the duals are of other bags
        models = [Model(*model)._replace(duals=None) for model in training["models"]] or [
            recipe.start(parameters) for parameters in self._parameters()
        ]
        began = time.perf_counter()
        results = self._epoch(chain, recipe, models, problem, self.n_iter_)
        if results is None:
            return
        record = self._record(chain, recipe, results, None)
        record["seconds"] = time.perf_counter() - began
        models = [tuple(result.model) for result in results]
        self._keep(chain, results, record, training | {"models": models, "n_seen": n_seen})

    def _begin_training(self, chain, recipe, problem, validation, given):
        """Return the state of training before its first epoch."""
        models = self._parameters()
        if given.held_back:
            # what validates must not have taken part in the classifier either
            for parameters, c in zip(models, self._columns(len(self.coef_)), strict=True):
                encodings = encode_bags(chain, parameters, problem.bags)
                parameters["coef"], parameters["intercept"] = self._fit_svm(
                    encodings, problem.columns(c)
                )
        training = {
            "start": models, "models": [], "epoch": 0, "finished": False,
            "seed": recipe.seed, "course": given.course, "waited": 0,
            "best": None, "best_iter": self.n_iter_, "best_loss": np.inf,
        }  # fmt: skip
        if validation is not None:
            training["best"] = models
            training["best_loss"] = self._validate(chain, recipe, models, validation)[0]
        return training

    def _record(self, chain, recipe, results, validation):
        """Return what the history keeps of an epoch."""
        mixtures = [chain.mixture(result.model.parameters) for result in results]
        record = {
            "loss": float(np.mean([result.loss for result in results])),
            "gradient_norm": max(result.gradient_norm for result in results),
            "smallest_weight": float(min(m.weights.min() * len(m.weights) for m in mixtures)),
            "smallest_variance": float(
                min((m.variances / self._global_variance).min() for m in mixtures)
            ),
        }
        if validation is not None:
            models = [result.model.parameters for result in results]
            loss, score = self._validate(chain, recipe, models, validation)
            record |= {"validation_loss": loss, "validation_score": score}
        return record

    def _validate(self, chain, recipe, models, problem):
        """Return loss and score on bags held back."""
        decision = decide(chain, models, problem.bags)
        return mean_loss(recipe, decision, problem), score_of(self._targets(problem), decision)

    def _targets(self, problem):
        return Targets(self._kind, self.classes_, problem.signs)

    def _advanced(self, training, models, epoch, record):
        """Return the state of training after an epoch."""
        training = training | {"models": [tuple(m) for m in models], "epoch": epoch}
        if record.get("validation_loss", np.inf) < training["best_loss"]:
            best = [model.parameters for model in models]
            return training | {
                "best": best, "best_iter": self.n_iter_ + 1,
                "best_loss": record["validation_loss"], "waited": 0,
            }  # fmt: skip
        return training | {"waited": training["waited"] + 1}

    def _end_training(self, chain, training):
        """Go back to the best epoch, if training was to stop early."""
        training = training | {"descended": True}
        if not self.early_stopping:
            self._training = training
            return
        if training["epoch"] and training["best_iter"] == self.n_iter_ - training["epoch"]:
            warn_caller(
                "The validation loss never fell below that of the start, so that nothing was "
                "learnt: lower learning_rate, raise n_iter_no_change or train on more bags.",
                ConvergenceWarning,
            )
        self.__dict__.update(
            self._attributes(chain, training["best"]),
            best_iter_=training["best_iter"],
            _training=training,
        )

    # Phase 3: a linear SVM on the learnt encodings.

    def _refit(self, chain, problem):
        """Fit the classifier to the encodings as they are now."""
        coef, intercept, decision = [], [], []
        columns = self._columns(problem.signs.shape[1])
        for parameters, c in zip(self._parameters(), columns, strict=True):
            encodings = encode_bags(chain, parameters, problem.bags)
            parts = self._fit_svm(encodings, problem.columns(c))
            coef.append(parts[0])
            intercept.append(parts[1])
            decision.append(encodings @ parts[0].T + parts[1])
        self.__dict__.update(
            coef_=np.concatenate(coef),
            intercept_=np.concatenate(intercept),
            _training={"seed": self._training["seed"], "finished": True},
        )
        self._warn_if_worse(chain, problem, np.hstack(decision))

    def _warn_if_worse(self, chain, problem, decision):
        """Warn of training that has ended far below its start on the very bags it had."""
        frozen = self.baseline_
        chain = frozen._chain(whitened=chain.whitening is None)
        start = decide(chain, frozen._parameters(), problem.bags)
        before, after = (
            judge(
                self._targets(problem), problem.weights, d,
                loss=self._svm_loss, mixture_weights=model.weights_,
            )
            for model, d in ((frozen, start), (self, decision))
        )  # fmt: skip
        fault = fault_of(before, after)
        if fault is None:
            return
        warn_caller(
            f"Training has made the model worse: on the bags it was fitted to, {fault}. Lower "
            "learning_rate; history_ tells the epoch where it began.",
            ConvergenceWarning,
        )

    def _split(self, targets):
        """Return the bags to train on and those to validate with."""
        index = np.arange(len(targets.signs))
        labels = None if targets.kind == "multilabel" else targets.labels(targets.signs)
        options = {"test_size": self.validation_fraction, "random_state": self._seeds["split"]}
        return train_test_split(index, stratify=labels, **options)
