"""Interrupt fits at random moments, by signals as Ctrl-C sends them: ``make interrupt-fits``.

After each, the model of before is whole, or there is none, or a whole new one; and the process is
as it was: threads of BLAS and OpenMP, scikit-learn's configuration, NumPy's, filters of warnings,
running threads.
"""

import signal
import sys
import threading
import time
import warnings
from collections import Counter

import numpy as np
from sklearn import get_config
from sklearn.exceptions import NotFittedError
from threadpoolctl import ThreadpoolController

from tests.contract.test_all_or_nothing import CASES, network, partial_fit, table

# Bags are as small in the cases as they can be, and fits as short.
LIBRARIES = ThreadpoolController().lib_controllers


def n_threads():
    """Return the number of threads, when those that are about to end have ended."""
    deadline = time.monotonic() + 10
    # one that was never started, as an interrupt came before, is counted by Python all the same
    while (n := sum(t.is_alive() for t in threading.enumerate())) > 1:
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    return n


def state():
    """Return what a fit may change of the process and has to put back."""
    return {
        "running threads": n_threads(),  # first: they may finish a task that holds BLAS
        "threads of BLAS and OpenMP": [library.get_num_threads() for library in LIBRARIES],
        "scikit-learn's configuration": get_config(),
        "NumPy's handling of errors": np.geterr(),
        "filters of warnings": list(warnings.filters),
    }


def interrupt(signum, frame):
    raise KeyboardInterrupt


def interrupted(function, seconds):
    """Call a function, interrupted after some time; return whether it came to that."""
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        function()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    except RuntimeError as error:  # Python's own, where an interrupt comes while a thread starts
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return False


class Case:
    """A way to fit an estimator, for the first time or to samples of another width."""

    def __init__(self, name, *, again, n_jobs):
        self._make, samples, self._ask, self._learn = CASES[name]
        self._again, self._n_jobs = again, n_jobs
        width = 3 if self._learn is partial_fit or "warm" in name else 2
        self._old, self._new = samples(3), samples(width if again else 3)
        self._heads = network(table(3)), network(table(width if again else 3))
        self._expected = self._answer(self._fitted()) if again else None
        self.goes_on = again and width == 3
        began = time.perf_counter()
        self.work(self.begin())
        self.seconds = time.perf_counter() - began

    def _fitted(self):
        return self._learn(self._parallel(self._make(self._heads[0])), self._old)

    def _parallel(self, estimator):
        if "n_jobs" in estimator.get_params(deep=False):
            estimator.set_params(n_jobs=self._n_jobs)
        return estimator

    def begin(self):
        """Return an estimator before the fit that is to be interrupted."""
        if not self._again:
            return self._parallel(self._make(self._heads[0]))
        estimator = self._fitted()
        if "network" in estimator.get_params(deep=False):
            estimator.set_params(network=self._heads[1])
        return estimator

    def learn(self, estimator):
        """Fit."""
        self._learn(estimator, self._new)

    def work(self, estimator):
        """Fit, and ask."""
        self.learn(estimator)
        self._ask(estimator, self._new)

    def _answer(self, estimator):
        answer = self._ask(estimator, self._old)
        return getattr(answer, "values", answer)

    def fault(self, estimator):
        """Return what is wrong with an estimator after an interrupt, or None."""
        try:
            if not self._again:
                self._ask(estimator, self._new)
                return None
            if estimator.n_features_in_ != np.shape(self._old[0])[-1]:
                self._ask(estimator, self._new)
                return None
            answer = self._answer(estimator)
        except NotFittedError:
            return "the old model is gone" if self._again else None
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if not self.goes_on and not np.array_equal(answer, self._expected):
            return "the old model is another one"
        return None


def main(n_rounds):
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, interrupt)
    for library in LIBRARIES:
        library.set_num_threads(3)
    rng = np.random.default_rng()
    cases = {
        (name, again, n_jobs): Case(name, again=again, n_jobs=n_jobs)
        for name in CASES
        for again in (False, True)
        for n_jobs in (None, 2)
    }
    before = state()
    n_interrupts, faults = 0, Counter()
    for i in range(n_rounds):
        key = list(cases)[i % len(cases)]
        case = cases[key]
        estimator = case.begin()
        seconds = rng.uniform(1e-5, 0.9 * case.seconds)
        if interrupted(lambda case=case, estimator=estimator: case.work(estimator), seconds):
            n_interrupts += 1
        after = state()
        found = [name for name, value in after.items() if value != before[name]]
        fault = case.fault(estimator)
        if fault:
            found.append(fault)
        for name in found:
            faults[(*key, name)] += 1
        if after != before:
            print(f"round {i}, {key}: {found}")
            before = after
    print(f"{n_interrupts} of {n_rounds} fits were interrupted: {faults.total()} faults.")
    for fault, n in faults.most_common():
        print(n, *fault)
    return bool(faults) or n_interrupts < n_rounds / 2


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
