"""Threads over bags: tasks cut the same way however many of them run at once."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn import get_config
from sklearn.utils.parallel import Parallel, delayed

from skfisher._compat import set_threads
from skfisher.bags.mapped import is_mapped, sendable
from skfisher.process_state import configured, one_blas_thread, openmp_threads

__all__ = [
    "call_in_threads",
    "cut_bags",
    "map_in_order",
    "map_in_threads",
    "submit",
    "workers_share_memory",
]

ROWS_PER_TASK = 2**15
NUMBERS_PER_TASK = 2**21


def map_in_order(function, tasks, *, n_jobs):
    """Yield ``function(*task)`` of every task, in order.

    In threads, unless the user chose other workers by ``joblib.parallel_config``. A
    result is computed when it is asked for, or a little before, where the workers
    can: results that are used up one by one never exist all at once.
    """
    tasks = list(tasks)
    n_workers = 1 if len(tasks) == 1 else min(effective_n_jobs(n_jobs), len(tasks))
    if n_workers == 1 or workers_share_memory():
        yield from map_in_threads(function, tasks, n_workers)
    else:
        copies, errors = {}, np.geterr()
        yield from _pool(n_jobs)(
            delayed(_call_elsewhere)(function, _sendable_task(task, copies), errors)
            for task in tasks
        )


def call_in_threads(function, tasks, n_threads):
    """Call ``function(*task)`` for every task, by so many threads of this process."""
    for _ in map_in_threads(function, tasks, n_threads):
        pass


def workers_share_memory():
    """Tell whether tasks may write into arrays of the caller: they do in threads."""
    backend, _ = get_active_backend(prefer="threads")
    return bool(getattr(backend, "supports_sharedmem", False))


def map_in_threads(function, tasks, n_threads):
    """Yield ``function(*task)`` of every task, in order, by so many threads of this process."""
    if n_threads == 1:
        for task in tasks:
            yield _call(function, task)
        return
    # joblib looks for results every 10 ms: as long as encoding some hundred bags takes
    pool, pending = ThreadPoolExecutor(n_threads), deque()
    try:
        try:
            for task in tasks:
                pending.append(submit(pool, _call, function, task))
                if len(pending) > 2 * n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
    finally:  # again, as an interrupt there would leave threads that wait for tasks
        pool.shutdown(cancel_futures=True)


def _pool(n_jobs):
    options = {"n_jobs": n_jobs, "prefer": "threads", "pre_dispatch": "2*n_jobs"}
    try:
        return Parallel(return_as="generator", **options)
    except ValueError:  # the backends multiprocessing and Ray give all results at once
        return Parallel(**options)


def _sendable_task(task, copies):
    """Return a task whose arrays reach other processes unchanged; shared ones are copied once."""
    for part in task:
        if is_mapped(part) and id(part) not in copies:
            copies[id(part)] = sendable(part)
    return tuple(copies.get(id(part), part) for part in task)


@one_blas_thread
def _call(function, task):
    return function(*task)


def _call_elsewhere(function, task, errors):
    """Call a function in another process, where joblib brings scikit-learn's configuration."""
    with np.errstate(**errors):
        return _call(function, task)


def submit(pool, function, *args):
    """Submit a call to threads that sees what its caller does.

    That is scikit-learn's configuration, the threads of OpenMP, and all context variables, among
    them what ``numpy.errstate`` sets and, where Python keeps them there, the filters of warnings.
    """
    call = configured(**get_config())(function)
    return pool.submit(copy_context().run, _call_alike, openmp_threads(), call, args)


def _call_alike(limits, function, args):
    for library, n_threads in limits:  # for good: the thread lives for one pool
        set_threads(library, n_threads)
    return function(*args)


def cut_bags(lengths, numbers_per_bag, rows_per_task=None):
    """Cut bags into tasks of some ten thousand descriptors, whatever the number of threads.

    Parameters
    ----------
    lengths : int array of shape (n_bags,)
    numbers_per_bag : int
        Size of the result of one bag; bounds the bags of a task.
    rows_per_task : int, optional
        `ROWS_PER_TASK` by default.

    Returns
    -------
    tasks : list of slice
    """
    if len(lengths) == 1:
        return [slice(0, 1)]
    most = max(1, NUMBERS_PER_TASK // numbers_per_bag)
    rows = ROWS_PER_TASK if rows_per_task is None else min(rows_per_task, ROWS_PER_TASK)
    ends = lengths.cumsum()
    if ends[-1] <= rows and len(lengths) <= most:
        return [slice(0, len(lengths))]
    tasks, first = [], 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = int(ends.searchsorted(before + rows)) + 1
        last = min(last, first + most, len(lengths))
        if last - first > 1 and lengths[last - 1] > rows:
            last -= 1  # a long bag is a task of its own
        tasks.append(slice(first, last))
        first = last
    return tasks
