"""What a call changes in the process is as before afterwards, wherever it is interrupted."""

import itertools
import sys
import threading
import warnings
from contextvars import ContextVar

import numpy as np
import pytest
from sklearn import get_config, set_config
from threadpoolctl import ThreadpoolController, threadpool_limits

from skfisher.process_state import (
    blas_threads,
    configured,
    ignoring,
    one_blas_thread,
    one_thread,
    restoring,
)

WATCHED = {"skfisher.process_state", "sklearn._config", "threadpoolctl", "warnings"}
LIBRARIES = ThreadpoolController().lib_controllers


def thread_counts():
    """Return the threads of every library that has its own, as threadpoolctl finds them."""
    return {library.filepath: library.get_num_threads() for library in LIBRARIES}


def state():
    return thread_counts(), get_config(), list(warnings.filters)


@pytest.fixture(autouse=True)
def three_threads():
    """Give every library three threads, so that one is a change."""
    with threadpool_limits(3):
        yield


def interrupted_by_signal(function, moment):
    """Call a function, interrupted at a moment; return whether it came to that.

    The moments are those where Python looks for signals: functions begin, or C code returns.
    """
    moments = itertools.count()

    def interrupt(frame, event, argument):
        watched = frame.f_globals["__name__"] in WATCHED and event in ("call", "c_return")
        if watched and next(moments) == moment:
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def interrupted_at_line(function, moment):
    """Call a function, interrupted at some line of ours; return whether it came to that."""
    moments = itertools.count()

    def interrupt(frame, event, argument):
        if frame.f_globals["__name__"] != "skfisher.process_state":
            return None
        if event in ("call", "line") and next(moments) == moment:
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


DECORATORS = {
    "BLAS": one_blas_thread,
    "BLAS and OpenMP": one_thread,
    "scikit-learn": configured(assume_finite=True, working_memory=7),
    "warnings": ignoring(RuntimeWarning),
}


@pytest.mark.parametrize("name", DECORATORS)
@pytest.mark.parametrize("interrupted", [interrupted_by_signal, interrupted_at_line])
def test_an_interrupt_at_any_moment_leaves_all_as_it_was(name, interrupted):
    inside = []
    function = DECORATORS[name](lambda: inside.append(state()))
    before = state()
    function()  # what is looked for once, is found now
    assert inside[-1] != before
    moment = 0
    while interrupted(function, moment):
        assert state() == before
        other = threading.Thread(target=function, daemon=True)
        other.start()
        other.join(20)
        assert not other.is_alive()  # no lock is left locked
        assert state() == before
        moment += 1
    assert moment > 5
    function()
    assert inside[-1] == inside[0]
    assert state() == before


@pytest.mark.parametrize("name", DECORATORS)
def test_an_error_leaves_all_as_it_was(name):
    @DECORATORS[name]
    def fail():
        raise ValueError("mine")

    before = state()
    with pytest.raises(ValueError, match="mine"):
        fail()
    assert state() == before


def test_one_thread_while_any_function_runs_in_any_thread():
    def others():
        thread = threading.Thread(target=one_blas_thread(int))
        thread.start()
        thread.join()
        one_blas_thread(int)()
        return blas_threads()

    assert blas_threads() == 3
    assert one_blas_thread(others)() == 1
    assert blas_threads() == 3


def test_a_setting_of_others_meanwhile_is_corrected_by_the_next_call():
    @one_blas_thread
    def outer():
        with threadpool_limits(2, user_api="blas"):
            return one_blas_thread(blas_threads)()

    assert outer() == 1
    assert blas_threads() == 3


def test_openmp_is_held_in_the_calling_thread():
    counts = []
    thread = threading.Thread(target=one_thread(lambda: counts.append(thread_counts())))
    thread.start()
    thread.join()
    assert set(counts[0].values()) == {1}
    assert set(thread_counts().values()) == {3}


def test_what_others_leave_behind_is_put_back():
    variable = ContextVar("variable", default="outside")

    @restoring
    def leave():
        variable.set("inside")
        np.errstate(divide="raise").__enter__()
        set_config(working_memory=7)
        warnings.catch_warnings().__enter__()
        warnings.simplefilter("error")
        assert around()[1]["divide"] == "raise"
        raise KeyboardInterrupt

    def around():
        return variable.get(), np.geterr(), get_config(), list(warnings.filters)

    before = around()
    with pytest.raises(KeyboardInterrupt):
        leave()
    assert around() == before


def test_warnings_are_ignored_by_category():
    @ignoring(RuntimeWarning)
    def warn():
        warnings.warn("a", RuntimeWarning, stacklevel=1)
        warnings.warn("b", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="b") as caught:
        warn()
    assert len(caught) == 1
