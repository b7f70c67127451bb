import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from skfisher.arrays.libraries import single_threaded_blas
from skfisher.parallel.threads import NUMBERS_PER_TASK, ROWS_PER_TASK, cut_bags, map_in_order


def blas_threads():
    """Return the threads of the BLAS that NumPy's products run in."""
    return [
        pool["num_threads"]
        for pool in threadpool_info()
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]
    ]


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=200), st.integers(1, 10**6))
def test_tasks_cover_all_bags_in_order_and_are_bounded(lengths, numbers):
    lengths = np.array(lengths)
    tasks = cut_bags(lengths, numbers)
    assert [i for task in tasks for i in range(task.start, task.stop)] == list(range(len(lengths)))
    for task in tasks:
        n_bags = task.stop - task.start
        assert n_bags == 1 or lengths[task].max() <= ROWS_PER_TASK
        assert n_bags == 1 or lengths[task][:-1].sum() < ROWS_PER_TASK
        assert n_bags == 1 or n_bags * numbers <= NUMBERS_PER_TASK


def test_results_come_in_the_order_of_the_tasks():
    tasks = [(i,) for i in range(50)]
    for n_jobs in (None, 1, 2):
        assert list(map_in_order(lambda i: i * i, tasks, n_jobs=n_jobs)) == [
            i * i for i in range(50)
        ]


def test_blas_has_one_thread_inside_and_what_it_had_after():
    before = blas_threads()
    inside = list(map_in_order(lambda _: blas_threads(), [(i,) for i in range(4)], n_jobs=2))
    assert all(n == 1 for threads in inside for n in threads)
    assert blas_threads() == before


def test_the_limit_is_not_lifted_by_threads_that_leave_early():
    before = blas_threads()

    def enter_and_leave():
        with single_threaded_blas():
            pass

    for _ in range(2):
        with single_threaded_blas():
            thread = threading.Thread(target=enter_and_leave)
            thread.start()
            thread.join()
            assert all(n == 1 for n in blas_threads())
        assert blas_threads() == before


def test_another_thread_can_hold_the_limit_too():
    before, inside = blas_threads(), []
    with single_threaded_blas():
        pass

    def hold():
        with single_threaded_blas():
            inside.extend(blas_threads())

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert inside
    assert all(n == 1 for n in inside)
    assert blas_threads() == before
