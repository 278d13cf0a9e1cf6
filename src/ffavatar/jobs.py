"""Many like pieces of work, on the cores of this machine or on a Ray cluster, with one interface.

A worker that dies (killed, out of memory, its machine lost) is replaced and its piece given to another, so nothing is
lost. Nothing is done twice where the function keeps what it finishes under a name of its own and looks there first:
all of this package's do. Functions and jobs are pickled; results come back in the order in which they are finished.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

from ffavatar.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

ATTEMPTS = 3  # workers that may die of one job before it is given up
_STARTS = 3  # of Ray on this machine: on a busy one its processes may not be up in time
_THREAD_ENDS_S = 20.0  # at most, until a thread of Ray Data has ended
_RAY_WAVE = 10_000  # jobs of one dataset: each is a block of its own, and Ray keeps account of every block
_RAY_LOSSES = 20  # machines lost with finished rows on them, after which something else is wrong


@dataclass(frozen=True)
class Crew:
    """Who does the work: ``workers`` processes of this machine (1: this process itself), or a Ray cluster.

    ``ray``: ``local`` starts Ray on this machine with ``workers`` cores; ``auto`` or HOST:PORT joins a running cluster.
    """

    workers: int = 1
    ray: str | None = None


@dataclass(frozen=True)
class Done(Generic[Job, Result]):
    """What became of a job. ``result`` is None only where ``error`` says that its workers died."""

    index: int  # its place among the jobs
    job: Job
    result: Result | None
    error: str = ""
    attempts: int = 1


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], crew: Crew, attempts: int = ATTEMPTS
) -> Iterator[Done[Job, Result]]:
    """``function`` of every job, as they are finished. Leaving the iteration early stops the workers.

    An exception of the function is raised here. A job whose workers died ``attempts`` times comes back with an
    ``error``. Raises ``InputError`` for a number of workers below 1, and where Ray is asked for and is not there.
    """
    if crew.workers < 1:
        raise InputError(f"{crew.workers} processes do no work; give at least 1.")
    if crew.ray is not None:
        return _on_ray(function, jobs, crew, attempts)
    if crew.workers == 1 or len(jobs) < 2:
        return (Done(index, job, function(job)) for index, job in enumerate(jobs))
    return _on_processes(function, jobs, min(crew.workers, len(jobs)), attempts)


def in_order(done: Iterable[Done[Job, Result]]) -> Iterator[Done[Job, Result]]:
    """The same, in the order of the jobs; what is finished early waits in memory."""
    early: dict[int, Done[Job, Result]] = {}
    following = 0
    for one in done:
        early[one.index] = one
        while following in early:
            yield early.pop(following)
            following += 1


def died(attempts: int) -> str:
    """The sentence for a job that was given up."""
    return f"its worker process died {attempts} times (killed, or out of memory)"


def one_thread() -> None:
    """Torch on one thread in this process, without loading it for work that does not need it: processes use the
    cores."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    else:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    index: int | None = None  # of the job it works on


@dataclass
class _Queue:
    """Jobs still to be given out, and how often each was."""

    waiting: deque[int]
    tries: dict[int, int] = field(default_factory=dict)

    def take(self) -> int:
        index = self.waiting.popleft()
        self.tries[index] = self.tries.get(index, 0) + 1
        return index


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """A worker process: answers each job with (True, result) or (False, exception) until the line is closed."""
    one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, function(job))
        except Exception as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            answer = (False, error)
        try:
            connection.send(answer)
        except OSError:  # the parent is gone; what was kept stays
            return
        except Exception as error:  # what cannot be pickled is told in words
            connection.send((False, RuntimeError(f"{answer[1]!r} cannot be sent back ({error})")))


def _on_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, attempts: int
) -> Iterator[Done[Job, Result]]:
    context = multiprocessing.get_context("spawn")
    queue = _Queue(deque(range(len(jobs))))
    crew: list[_Worker] = []

    def hire() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        process.start()
        theirs.close()
        crew.append(_Worker(process, ours))

    try:
        while queue.waiting or any(worker.index is not None for worker in crew):
            while len(crew) < workers and len(crew) < len(queue.waiting) + sum(w.index is not None for w in crew):
                hire()
            for worker in crew:
                if worker.index is None and queue.waiting:
                    worker.index = queue.take()
                    try:
                        worker.connection.send(jobs[worker.index])
                    except OSError:
                        pass  # it has died: seen below
            ready = wait([worker.connection for worker in crew])
            for worker in [worker for worker in crew if worker.connection in ready]:
                try:
                    good, answer = worker.connection.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    worker.process.join()
                    if (index := worker.index) is None:
                        continue
                    if queue.tries[index] < attempts:
                        queue.waiting.appendleft(index)
                    else:
                        yield Done(index, jobs[index], None, died(attempts), attempts)
                    continue
                if not good:
                    raise answer
                assert worker.index is not None
                index, worker.index = worker.index, None
                yield Done(index, jobs[index], answer, attempts=queue.tries[index])
    finally:
        for worker in crew:
            if worker.index is not None:
                worker.process.terminate()
            worker.connection.close()
        for worker in crew:
            worker.process.join()


def import_ray() -> Any:
    """Ray, with its reports to its makers switched off. Raises ``InputError`` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # a thread of Ray Data that outlives ``shutdown`` would start a cluster of its own, whose end ends this process
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import ray
        except ImportError:
            raise InputError('Ray is not installed; pip install "ffavatar[bulk]", or leave out --ray.') from None
    return ray


def _on_ray(
    function: Callable[[Job], Result], jobs: Sequence[Job], crew: Crew, attempts: int
) -> Iterator[Done[Job, Result]]:
    """Ray Data: a dataset of jobs, one to a block and a core, mapped by ``function``; rows come as they are finished.

    Ray's own retries are off and blocks that failed are passed over, so that a job that kills its workers stops no
    other; what gave no row is mapped again, and attempts are counted here, alike for both kinds of crew.
    """
    ray = import_ray()
    started = not ray.is_initialized()
    if started:
        _join(ray, crew)
    try:
        for first in range(0, len(jobs), _RAY_WAVE):
            left = dict.fromkeys(range(first, min(first + _RAY_WAVE, len(jobs))))
            tries = cut_short = 0
            while left and tries < attempts:
                try:
                    tries += 1
                    for index, good, answer in _ray_rows(ray, function, jobs, list(left)):
                        if not good:
                            raise answer
                        del left[index]
                        yield Done(index, jobs[index], answer, attempts=tries)
                except ray.exceptions.ObjectLostError:  # a machine took finished rows along: no fault of the others'
                    cut_short += 1
                    if cut_short > _RAY_LOSSES:
                        raise
                    tries -= 1
            for index in left:
                yield Done(index, jobs[index], None, died(attempts), attempts)
    finally:
        if started:
            _end_threads()
            ray.shutdown()


def _end_threads() -> None:
    """End what Ray Data leaves behind where rows are not read to the end: the next call of Ray by one of its threads,
    after ``shutdown``, would end this process."""
    for thread in threading.enumerate():
        if thread.name == "Prefetcher":
            stop = getattr(getattr(getattr(thread, "_target", None), "__self__", None), "stop", None)
            if stop is not None:
                stop()
                thread.join(_THREAD_ENDS_S)
        elif thread.name.startswith("StreamingExecutor"):
            thread.join(_THREAD_ENDS_S)


def _ray_rows(
    ray: Any, function: Callable[[Job], Result], jobs: Sequence[Job], indices: Sequence[int]
) -> Iterator[tuple[int, bool, Any]]:
    """(index, whether it went well, result or exception) of one pass over some of the jobs, as they are finished."""
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import data

    def work(row: dict[str, Any]) -> dict[str, Any]:
        one_thread()
        try:
            answer: tuple[bool, Any] = (True, function(pickle.loads(row["job"])))
        except Exception as error:
            answer = (False, error)
        try:
            return {"index": row["index"], "answer": pickle.dumps(answer)}
        except Exception as error:
            told = RuntimeError(f"{answer[1]!r} cannot be sent back ({error})")
            return {"index": row["index"], "answer": pickle.dumps((False, told))}

    context = data.DataContext.get_current()
    before = context.max_errored_blocks, context.enable_progress_bars
    context.max_errored_blocks, context.enable_progress_bars = -1, False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it tells at length of every block that failed
    try:
        rows = [{"index": index, "job": pickle.dumps(jobs[index])} for index in indices]
        made = data.from_items(rows, override_num_blocks=len(rows)).map(
            work, num_cpus=1, max_retries=0, scheduling_strategy="SPREAD"
        )
        for row in made.iter_rows():
            yield (row["index"], *pickle.loads(row["answer"]))
    finally:
        context.max_errored_blocks, context.enable_progress_bars = before


def _join(ray: Any, crew: Crew) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if crew.ray != "local":
            try:
                ray.init(address=crew.ray, **quiet)
                return
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"No Ray cluster answers at {crew.ray!r} ({type(error).__name__}); start one with "
                    "`ray start --head`, or give --ray local."
                ) from None
        for left in reversed(range(_STARTS)):
            try:
                ray.init(address="local", num_cpus=crew.workers, include_dashboard=False, **quiet)
                return
            except Exception as error:  # Ray raises the bare class where its processes are not up within 30 s
                ray.shutdown()
                if not left:
                    raise InputError(
                        f"Ray does not start on this machine ({error}); try when it is less busy, or leave out --ray."
                    ) from error
