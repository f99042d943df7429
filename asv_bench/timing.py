"""Timing in rounds: every task once in each, so that a machine that changes its speed changes it for all."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import spcy

FEWEST = 3  # rounds
SHORTEST = 2e-3  # seconds that are timed at once
SETTLE = 0.04  # seconds in which the idle threads of another engine stop spinning: OpenBLAS's take 20 ms


class Task(NamedTuple):
    """``run(*prepare())`` gives the result; only the run is timed."""

    run: Callable
    prepare: Callable[[], Any] = tuple


def interleaved(tasks, clock, rounds, seconds, settle):
    """Return the median seconds of each task, their runs interleaved; fewer rounds if they take long."""
    times = {name: [] for name in tasks}
    for number in range(rounds):
        for name, task in tasks.items():
            if number >= FEWEST and sum(times[name]) > seconds:
                continue
            time.sleep(settle)
            last = times[name][-1] if times[name] else 0
            if last < 0.1:
                task.run(*task.prepare())
            prepared = task.prepare()
            calls = range(1 if prepared or not last else max(1, int(SHORTEST / last)))
            start = clock()
            for _ in calls:
                task.run(*prepared)
            times[name].append((clock() - start) / len(calls))
    return {name: statistics.median(values) for name, values in times.items()}


def on_threads(threads, task):
    """Return a task of spcy's on so many threads."""

    def prepare():
        spcy.set_num_threads(threads)
        return task.prepare()

    return Task(task.run, prepare)
