"""State of the whole process or thread that a call changes, and that is as before afterwards.

Each decorator here changes something for as long as a function runs: the threads of BLAS and
OpenMP, scikit-learn's configuration, the filters of warnings. A `KeyboardInterrupt` may come
almost anywhere, also on the way into a ``with`` statement or out of it, which is then not left as
it should be: so every step back may be taken before the step there is through, and is taken twice.
"""

import functools
import threading
import traceback
import warnings
from contextvars import copy_context

from sklearn import get_config, set_config
from threadpoolctl import ThreadpoolController

from skfisher._compat import set_threads

__all__ = [
    "blas_threads",
    "configured",
    "ignoring",
    "one_blas_thread",
    "one_thread",
    "openmp_threads",
    "restoring",
]


def one_blas_thread(function):
    """Hold BLAS at one thread while a function runs, so that no bit depends on their number.

    The setting is mostly one for the whole process: it is lifted when the last function that asks
    for it ends, in whatever thread.
    """
    return _changing(lambda: _hold(_shared_blas, _of_thread.blas), function)


def one_thread(function):
    """Hold BLAS at one thread while a function runs, and OpenMP in the thread that runs it."""
    return _changing(lambda: _hold(_of_thread.openmp), one_blas_thread(function))


def configured(**settings):
    """Return a decorator: while the function runs, scikit-learn is configured like this."""

    def change():
        before = get_config()
        return (lambda: set_config(**settings)), (lambda: set_config(**before))

    return functools.partial(_changing, change)


def ignoring(category):
    """Return a decorator: while the function runs, warnings of a category are not shown."""

    def change():
        manager, entered = warnings.catch_warnings(), []

        def ignore():
            manager.__enter__()
            entered.append(True)
            warnings.simplefilter("ignore", category)

        return ignore, lambda: entered and manager.__exit__(None, None, None)

    return functools.partial(_changing, change)


def restoring(function):
    """Put back what contexts of others, within a function, should have put back.

    That is scikit-learn's configuration, the threads of BLAS and OpenMP, the filters of warnings,
    and context variables such as ``numpy.errstate`` sets: where an interrupt comes on the way out
    of these, they stay as they were inside.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        config, filters, threads = get_config(), warnings.filters, _shared_blas.usual()
        threads = [*threads, *openmp_threads()]
        try:
            return copy_context().run(function, *args, **kwargs)
        except Exception:
            raise
        except BaseException as error:
            # contexts that are generators would else end when the traceback is forgotten
            traceback.clear_frames(error.__traceback__)
            set_config(**config)
            warnings.filters = filters
            _shared_blas.restore(threads)
            raise

    return call


def blas_threads():
    """Return how many threads a product may run in; 1 while it is held at one."""
    libraries = [*_libraries("shared"), *_libraries("own")]
    return max((library.get_num_threads() for library in libraries), default=1)


def openmp_threads():
    """Return the libraries whose threads are counted for each thread alone, and how many it has."""
    libraries = [*_libraries("own"), *_libraries("openmp")]
    return [(library, library.get_num_threads()) for library in libraries]


def _changing(change, function):
    """Return a function that runs between two steps.

    Parameters
    ----------
    change : callable
        Returns two callables without arguments: the step before, and the step back, which does
        no harm where the first was not, or not wholly, taken, nor where it is repeated.
    function : callable
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        there, back = change()
        try:
            try:
                there()
                return function(*args, **kwargs)
            finally:
                back()
        finally:
            back()  # again, as the first may have been interrupted

    return call


@functools.cache
def _libraries(kind):
    """Return controllers of libraries: of BLAS, "shared" or "own" by threads, or of "openmp"."""
    # Looking for the loaded libraries takes milliseconds, so look once.
    controllers = ThreadpoolController().lib_controllers

    def kind_of(library):
        if library.user_api != "blas":
            return library.user_api
        return "own" if getattr(library, "threading_layer", None) == "openmp" else "shared"

    return [library for library in controllers if kind_of(library) == kind]


class _Limit:
    """One thread for libraries of a kind, as long as there is anybody who holds it."""

    def __init__(self, kind):
        self._kind = kind
        self._lock = threading.RLock()
        self._holders = set()
        self._usual = None  # libraries, with the number of threads that they had before

    def enter(self, holder):
        with self._lock:
            self._holders.add(holder)
            self._settle()

    def leave(self, holder):
        try:
            with self._lock:
                self._holders.discard(holder)
                self._settle()
        finally:  # an interrupt on the way out of the lock may have left it locked
            while self._lock._is_owned():  # by this thread, as conditions ask
                self._lock.release()

    def usual(self):
        """Return the libraries and how many threads they have while nobody holds them."""
        usual = self._usual
        if usual is None:
            usual = [(library, library.get_num_threads()) for library in _libraries(self._kind)]
        return usual

    def restore(self, threads):
        """Set threads of libraries, unless somebody holds them."""
        with self._lock:
            if not self._holders:
                for library, n_threads in threads:
                    set_threads(library, n_threads)

    def _settle(self):
        """Set the number of threads that suits the holders."""
        if self._holders:
            if self._usual is None:
                self._usual = self.usual()
            for library, _ in self._usual:  # again, as others may have changed it
                set_threads(library, 1)
        elif self._usual is not None:
            for library, n_threads in self._usual:
                set_threads(library, n_threads)
            self._usual = None


class _OfThread(threading.local):
    """Limits that hold in the thread that sets them: those of OpenMP, and of BLAS by OpenMP."""

    def __init__(self):
        self.blas, self.openmp = _Limit("own"), _Limit("openmp")


_shared_blas, _of_thread = _Limit("shared"), _OfThread()


def _hold(*limits):
    """Return the steps there and back of holding limits."""
    holder = object()

    def enter():
        for limit in limits:
            limit.enter(holder)

    def leave():
        for limit in limits:
            limit.leave(holder)

    return enter, leave
