"""The workers of a Dask cluster, as those who work on shards.

A task is a few shards, by their paths, and a function of their rows, pickled with its parameters:
what is scattered would die with the worker that holds it. Where a worker dies, the scheduler
gives its tasks to others. A few tasks for each thread are under way at a time, so that neither
the graph nor what waits for its turn grows with the data.
"""

import asyncio
import pickle
import socket
import time
from collections import deque
from concurrent.futures import CancelledError, wait

from sklearn import config_context, get_config

from skfisher.bags.sharded import ShardedBags
from skfisher.bags.sharded_values import ShardedValues
from skfisher.contract.estimator import Interruption
from skfisher.version import __version__

__all__ = ["LostWorkersError", "Workers", "check_shards"]

# Descriptors of a task: a second or so of work. Fewer, where there are few for each thread.
ROWS_PER_TASK = 2**18
TASKS_PER_THREAD = 4
SECONDS_BETWEEN_LOOKS = 1.0


class LostWorkersError(Interruption, RuntimeError):
    """The workers of a cluster, or its scheduler, are gone.

    A model that was being fitted holds its last whole iteration, and results that were written
    stay.

    See Also
    --------
    fit : What raises it.
    """


class Workers:
    """The workers of a cluster, see `skfisher.parallel.machines`.

    Parameters
    ----------
    client : distributed.Client or None
        None for the one made last.
    timeout : float
        Seconds to wait for a worker while there is none.
    verbose : bool
        Whether to print a line after each pass over the data.
    """

    def __init__(self, client, timeout, verbose):
        self._client, self._timeout, self._verbose = _read_client(client), timeout, verbose
        self._n_passes = 0
        self._without_workers = None  # since when, if there are none
        self._wait_for_workers()
        self._check_versions()

    def rows_per_task(self, n_rows):
        """Return how many of so many descriptors a task should have, at least."""
        return min(ROWS_PER_TASK, n_rows // (TASKS_PER_THREAD * self._n_threads()))

    def map(self, function, tasks):
        """Yield ``function(*args)`` for all ``(args, name)``, in order."""
        began, n_done, pending = time.monotonic(), 0, deque()
        self._n_passes += 1
        n_ahead = TASKS_PER_THREAD * self._n_threads()
        try:
            for args, name in tasks:
                pending.append((self._submit(function, args), name))
                if len(pending) > n_ahead:
                    yield self._result(*pending[0])
                    pending.popleft()
                    n_done += 1
            while pending:
                yield self._result(*pending[0])
                pending.popleft()
                n_done += 1
        finally:  # after an error or an interrupt there are some left
            self._cancel([future for future, _ in pending])
        if self._verbose:
            seconds = time.monotonic() - began
            print(f"skfisher.dask: pass {self._n_passes}, {n_done} tasks in {seconds:.1f} s")

    def _submit(self, function, args):
        import cloudpickle

        # bytes, which nobody looks into on the way
        data = cloudpickle.dumps((function, args, get_config()))
        return self._client.submit(_work, __version__, data, pure=False, key=None)

    def _result(self, future, name):
        """Wait for the result of a task for as long as there are workers, or will be again."""
        from distributed.scheduler import KilledWorker

        # Dask's own wait with a time limit may fail where the result comes just then, and waits
        # on where a result is lost with its worker while it is fetched.
        loop = self._client.loop.asyncio_loop
        coroutine = self._client.gather(future, asynchronous=True)
        fetched = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            while not wait([fetched], SECONDS_BETWEEN_LOOKS).done:
                self._look()
            return fetched.result()
        except KilledWorker as error:
            raise LostWorkersError(
                f"the task of the shard {name}, and maybe others, was lost with each worker "
                f"that tried it: {error} Do workers have memory enough for it?"
            ) from error
        except CancelledError as error:
            raise self._lost(f"a task was cancelled ({error})") from error
        finally:
            fetched.cancel()

    def _look(self):
        """Raise LostWorkersError if the scheduler is gone, or has had no workers for long."""
        if self._client.status not in ("running", "connecting"):
            raise self._lost(f"the client is {self._client.status}")
        try:
            n_workers = len(self._client.nthreads())
        except (OSError, TimeoutError, ValueError):  # it may come back
            n_workers = 0
        now = time.monotonic()
        if n_workers:
            self._without_workers = None
        elif self._without_workers is None:
            self._without_workers = now
        elif now - self._without_workers > self._timeout:
            raise self._lost(f"there has been no worker for {self._timeout:g} s")

    def _lost(self, reason):
        return LostWorkersError(
            f"{reason}. A model holds its last whole iteration, and finished results stay: start "
            "workers, and go on."
        )

    def _cancel(self, futures):
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True)

    def _n_threads(self):
        return max(1, sum(self._client.nthreads().values()))

    def _wait_for_workers(self):
        try:
            self._client.wait_for_workers(1, timeout=self._timeout)
        except TimeoutError as error:
            raise LostWorkersError(
                f"the cluster has had no worker for {self._timeout:g} s: start some first."
            ) from error

    def _check_versions(self):
        """Refuse workers without this package, or with another version of it."""

        def version():  # in here, so that it is sent as it is: there may be no package
            try:
                import skfisher
            except ImportError as error:
                return f"no skfisher ({error})"
            return f"skfisher {skfisher.__version__}"

        found = self._client.run(version, on_error="ignore")
        wanted = f"skfisher {__version__}"
        for worker, of_worker in found.items():
            if of_worker != wanted:
                raise _other_version(worker, of_worker, __version__)


def check_shards(shards, *, whole=True):
    """Refuse what is no `ShardedBags`, nor some bags of one, if that will do."""
    some = not whole and isinstance(getattr(shards, "values", None), ShardedValues)
    if not (some or isinstance(shards, ShardedBags)):
        raise TypeError(
            f"shards is a {type(shards).__name__}, but workers read ShardedBags: write them by "
            "ShardedBags.write or Bags.save, and open them by ShardedBags.open."
        )


def _read_client(client):
    try:
        from distributed import Client, default_client
    except ImportError as error:
        raise ImportError("skfisher.dask needs Dask: pip install skfisher[dask].") from error
    if client is None:
        try:
            client = default_client()
        except ValueError as error:
            raise ValueError("there is no client: pass client=distributed.Client(...).") from error
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(f"client is {client!r}, but a distributed.Client that waits is needed.")
    if client.status != "running":
        raise ValueError(f"client is {client.status}: pass one that is connected to a scheduler.")
    return client


def _other_version(worker, found, wanted):
    return RuntimeError(
        f"the worker {worker} has {found}, but the client has skfisher {wanted}: install the same "
        "version everywhere."
    )


def _work(version, data):
    """Call a function on a worker."""
    if version != __version__:
        raise _other_version(_address(), f"skfisher {__version__}", version)
    function, args, config = pickle.loads(data)
    try:
        with config_context(**config):
            return function(*args)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"on the worker {_address()}: {error}") from error


def _address():
    from distributed import get_worker

    return f"{get_worker().address} ({socket.gethostname()})"
