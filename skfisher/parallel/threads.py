"""Calls of a function, by threads of this process or whatever workers the user chose."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn import get_config
from sklearn.utils.parallel import Parallel, delayed

from skfisher._compat import set_threads
from skfisher.bags.mapped import MappedFile, by_path, is_mapped, sendable
from skfisher.process_state import configured, one_blas_thread, openmp_threads

__all__ = [
    "call_in_threads",
    "map_in_order",
    "map_in_threads",
    "submit",
    "workers_share_memory",
]

# Calls that reach another process together: to send and fetch takes milliseconds, as calls may.
CALLS_PER_TASK = 4
TASKS_PER_WORKER = 4


def map_in_order(function, arguments, *, n_jobs):
    """Yield ``function(*args)`` of all arguments, in order.

    In threads, unless the user chose other workers by ``joblib.parallel_config``. A
    result is computed when it is asked for, or a little before, where the workers
    can: results that are used up one by one never exist all at once.
    """
    arguments = list(arguments)
    n_workers = 1 if len(arguments) == 1 else min(effective_n_jobs(n_jobs), len(arguments))
    if n_workers == 1 or workers_share_memory():
        yield from map_in_threads(function, arguments, n_workers)
    else:
        copies, errors = {}, np.geterr()
        send = sendable if _opens_maps() else by_path
        n_together = min(CALLS_PER_TASK, len(arguments) // (TASKS_PER_WORKER * n_workers))
        yield from _pool(n_jobs, max(1, n_together))(
            delayed(_call_elsewhere)(function, errors, *_sendable(args, copies, send))
            for args in arguments
        )


def call_in_threads(function, arguments, n_threads):
    """Call ``function(*args)`` for all arguments, by so many threads of this process."""
    for _ in map_in_threads(function, arguments, n_threads):
        pass


def workers_share_memory():
    """Tell whether calls may write into arrays of the caller: they do in threads."""
    backend, _ = get_active_backend(prefer="threads")
    return bool(getattr(backend, "supports_sharedmem", False))


def map_in_threads(function, arguments, n_threads):
    """Yield ``function(*args)`` of all arguments, in order, by so many threads of this process."""
    if n_threads == 1:
        for args in arguments:
            yield _call(function, args)
        return
    # joblib looks for results every 10 ms: as long as encoding some hundred bags takes
    pool, pending = ThreadPoolExecutor(n_threads), deque()
    try:
        try:
            for args in arguments:
                pending.append(submit(pool, _call, function, args))
                if len(pending) > 2 * n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
    finally:  # again, as an interrupt there would leave threads that wait for calls
        pool.shutdown(cancel_futures=True)


def _pool(n_jobs, n_together):
    options = {"n_jobs": n_jobs, "prefer": "threads"}
    options |= {"batch_size": n_together, "pre_dispatch": f"{2 * n_together}*n_jobs"}
    try:
        return Parallel(return_as="generator", **options)
    except ValueError:  # the backends multiprocessing and Ray give all results at once
        return Parallel(**options)


def _opens_maps():
    """Tell whether workers get the memory maps of a task as such, as joblib's own do."""
    backend, _ = get_active_backend(prefer="threads")
    return type(backend).__module__ == "joblib._parallel_backends"


def _sendable(args, copies, send):
    """Return arguments that reach other processes unchanged; shared arrays are copied once."""
    for part in args:
        if is_mapped(part) and id(part) not in copies:
            copies[id(part)] = send(part)
    return tuple(copies.get(id(part), part) for part in args)


@one_blas_thread
def _call(function, args):
    return function(*args)


def _call_elsewhere(function, errors, *args):
    """Call a function in another process, where joblib brings scikit-learn's configuration.

    Arguments are those of the call itself: Dask sends large ones of these once to a worker.
    """
    args = [part.open() if isinstance(part, MappedFile) else part for part in args]
    with np.errstate(**errors):
        return _call(function, args)


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
