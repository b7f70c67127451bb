"""Descent on everything that is to be trained, an epoch at a time."""

import time
from dataclasses import replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from skfisher.contract.extremes import check_encodings
from skfisher.joint.continuing import course_of
from skfisher.joint.settings import recipe_of, trained_groups
from skfisher.joint.start import JointStart
from skfisher.layers.encode import encode_bags
from skfisher.training.epochs import Diverged, run_epoch
from skfisher.training.state import TrainingState
from skfisher.training.verdict import decide
from skfisher.warning import warn_caller

__all__ = ["JointDescent"]


class JointDescent(JointStart):
    """Trains the model that it was given, and keeps the last finished epoch."""

    def _descend(self, chain, problem, validation, progress, given):
        """Train until the last epoch, or until validation, a callback or a number says stop."""
        state = self._training
        if state is not None and state.descended:
            return  # all that an interrupt has left to do is the last linear model
        resumed = state is not None and state.under_way
        seed = state.seed if resumed else self._next_seed()
        n_bags, total = len(problem.bags), given.total_weight
        recipe = recipe_of(self, self._task(), chain.pooling, n_bags, seed, total_weight=total)
        if not resumed:
            state = self._begin_training(chain, recipe, problem, validation, given)
        for epoch in range(state.n_epochs, self.max_iter):
            if self.early_stopping and state.n_waited >= self.n_iter_no_change:
                break
            step = progress.subcontext(task_name="epoch")
            step.call_on_fit_task_begin(estimator=self)
            began = time.perf_counter()
            results = self._epoch(chain, recipe, state.models, problem, epoch)
            if results is None:
                step.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict)
                break
            record = self._record(chain, results, validation)
            record["seconds"] = time.perf_counter() - began
            models = [result.model for result in results]
            loss = record.get("validation_loss", np.inf)
            state = state.advanced(models, self.n_iter_ + 1, loss)
            self._keep(chain, results, record, state)
            if self.verbose:
                values = ", ".join(f"{name} {value:.4g}" for name, value in record.items())
                print(f"{type(self).__name__}: epoch {epoch + 1} of {self.max_iter}: {values}")
            if step.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict):
                break
        self._end_training(chain, state)

    def _next_seed(self):
        """Return the seed of a descent that begins: other batches than those of the last one."""
        state = self._training
        return self._seeds["descent"] if state is None else state.seed + 1

    def _epoch(self, chain, recipe, models, problem, epoch):
        """Run an epoch of every model; return None, with a warning, if a number is not finite."""
        columns = self._columns(problem.targets.shape[1])
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

    def _keep(self, chain, results, record, state):
        """Set every attribute to its value after an epoch."""
        history = {  # an entry an epoch, whatever was measured in it
            name: [*self.history_.get(name, [np.nan] * self.n_iter_), record.get(name, np.nan)]
            for name in self.history_ | record
        }
        self._assign(
            **self._attributes(chain, [result.model.parameters for result in results]),
            history_=history,
            n_iter_=self.n_iter_ + 1,
            best_iter_=self.n_iter_ + 1,
            _training=state,
        )

    def _pass_once(self, chain, problem):
        """Train for one epoch on bags that are not all there are."""
        state, pooling, task = self._training, chain.pooling, self._task()
        if state is None or not state.in_parts:  # descent on all bags has another rate
            course = course_of(self, trained_groups(self.train, pooling, task))
            state = TrainingState(self._next_seed(), course, [], n_seen=0)
        n_seen = state.n_seen + len(problem.bags)
        recipe = recipe_of(self, task, pooling, len(problem.bags), state.seed, n_seen=n_seen)
        models = [model.of_other_bags() for model in state.models] or [
            recipe.start(parameters) for parameters in self._parameters()
        ]
        began = time.perf_counter()
        results = self._epoch(chain, recipe, models, problem, self.n_iter_)
        if results is None:
            return
        record = self._record(chain, results, None)
        record["seconds"] = time.perf_counter() - began
        models = [result.model for result in results]
        self._keep(chain, results, record, replace(state, models=models, n_seen=n_seen))

    def _begin_training(self, chain, recipe, problem, validation, given):
        """Return the state of training before its first epoch."""
        models = self._parameters()
        if given.held_back:
            # what validates must not have taken part in the linear model either
            for parameters, c in zip(models, self._columns(len(self.coef_)), strict=True):
                encodings = encode_bags(chain, parameters, problem.bags)
                parameters["coef"], parameters["intercept"] = self._fit_head(
                    encodings, problem.columns(c)
                )
        state = TrainingState(
            recipe.seed,
            given.course,
            [recipe.start(parameters) for parameters in models],
            best_iter=self.n_iter_,
        )
        if validation is None:
            return state
        loss, _ = self._validate(chain, models, validation)
        if not np.isfinite(loss):  # and no later one could be seen to be lower
            for parameters in models:
                with np.errstate(over="ignore", invalid="ignore"):
                    encodings = encode_bags(chain, parameters, validation.bags)
                check_encodings(encodings, "X_val")
        return replace(state, best=models, best_loss=loss)

    def _record(self, chain, results, validation):
        """Return what the history keeps of an epoch."""
        models = [result.model.parameters for result in results]
        record = {
            "loss": float(np.mean([result.loss for result in results])),
            "gradient_norm": max(result.gradient_norm for result in results),
        }
        records = [result.record for result in results]
        record |= {name: float(np.mean([r[name] for r in records])) for name in records[0]}
        record |= self._health(chain, models)
        if validation is not None:
            loss, score = self._validate(chain, models, validation)
            record |= {"validation_loss": loss, "validation_score": score}
        return record

    def _health(self, chain, models):
        """Return what the pooling layer tells of itself, the worst of all models."""
        health = getattr(chain.pooling, "health", lambda _: {})
        found = [health(parameters) for parameters in models]
        return {name: min(values[name] for values in found) for name in found[0]}

    def _validate(self, chain, models, problem):
        """Return loss and score on bags held back."""
        with np.errstate(over="ignore", invalid="ignore"):  # a loss of NaN is never the lowest
            decision = decide(chain, models, problem.bags)
        task = self._task()
        return task.mean_loss(decision, problem), task.score(decision, problem.targets)

    def _end_training(self, chain, state):
        """Go back to the best epoch, if training was to stop early."""
        ended = replace(state, descended=True)
        if not self.early_stopping:
            self._training = ended
            return
        if state.n_epochs and state.best_iter == self.n_iter_ - state.n_epochs:
            warn_caller(
                "The validation loss never fell below that of the start, so that nothing was "
                "learnt: lower learning_rate, raise n_iter_no_change or train on more bags.",
                ConvergenceWarning,
            )
        self._assign(
            **self._attributes(chain, state.best), best_iter_=state.best_iter, _training=ended
        )

    def _split(self, problem):
        """Return the bags to train on and those to validate with."""
        strata = self._task().strata(problem.targets)
        options = {"test_size": self.validation_fraction, "random_state": self._seeds["split"]}
        return train_test_split(np.arange(len(problem.bags)), stratify=strata, **options)
