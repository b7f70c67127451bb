"""Threads over bags: tasks cut the same way however many of them run at once."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn.utils.parallel import Parallel, delayed

from skfisher.arrays.libraries import single_threaded_blas
from skfisher.bags.mapped import is_mapped, sendable

__all__ = ["cut_bags", "map_in_order", "workers_share_memory"]

ROWS_PER_TASK = 2**15
NUMBERS_PER_TASK = 2**21


def map_in_order(function, tasks, *, n_jobs):
    """Yield ``function(*task)`` of every task, in order.

    In threads, unless the user chose other workers by ``joblib.parallel_config``. A
    result is computed when it is asked for, or a little before, where the workers
    can: results that are used up one by one never exist all at once.
    """
    tasks = list(tasks)
    n_workers = min(effective_n_jobs(n_jobs), len(tasks))
    with single_threaded_blas():
        if n_workers == 1:
            for task in tasks:
                yield function(*task)
        elif workers_share_memory():
            yield from _map_threads(function, tasks, n_workers)
        else:
            copies = {}
            yield from _pool(n_jobs)(
                delayed(_call)(function, _sendable_task(task, copies)) for task in tasks
            )


def workers_share_memory():
    """Tell whether tasks may write into arrays of the caller: they do in threads."""
    backend, _ = get_active_backend(prefer="threads")
    return bool(getattr(backend, "supports_sharedmem", False))


def _map_threads(function, tasks, n_threads):
    # joblib looks for results every 10 ms: as long as encoding some hundred bags takes
    pool = ThreadPoolExecutor(n_threads)
    pending = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(function, *task))
            if len(pending) > 2 * n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
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


def _call(function, task):
    with single_threaded_blas():  # again, for workers in other processes
        return function(*task)


def cut_bags(lengths, numbers_per_bag):
    """Cut bags into tasks of some ten thousand descriptors, whatever the number of threads.

    Parameters
    ----------
    lengths : int array of shape (n_bags,)
    numbers_per_bag : int
        Size of the result of one bag; bounds the bags of a task.

    Returns
    -------
    tasks : list of slice
    """
    most = max(1, NUMBERS_PER_TASK // numbers_per_bag)
    ends = np.cumsum(lengths)
    tasks, first = [], 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + ROWS_PER_TASK)) + 1
        last = min(last, first + most, len(lengths))
        if last - first > 1 and lengths[last - 1] > ROWS_PER_TASK:
            last -= 1  # a long bag is a task of its own
        tasks.append(slice(first, last))
        first = last
    return tasks
