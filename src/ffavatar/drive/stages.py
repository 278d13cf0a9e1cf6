"""Running the steps of a film side by side: each is a generator, and a bounded queue stands between two."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SETTING_THREADS = threading.Lock()  # between change and restoration another stage would read the wrong number
_LOOK_S = 0.1  # how often a waiting thread looks whether it is still wanted


class _End:
    """Put into the queue when a step has nothing more."""


class _Failure:
    """An exception on its way to the thread that waits."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def use_threads(count: int) -> None:
    """Torch's intra-op threads of the calling thread, which must be new; the process' own setting stays.

    ``torch.set_num_threads`` sets the calling thread's number and that of threads to come; the latter is put back.
    Does nothing where torch shares one pool among all threads.
    """
    import torch

    with _SETTING_THREADS:  # for this question too: torch's first answer in a thread writes back what it reads
        if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
            return
        everywhere = torch.get_num_threads()  # a new thread begins with the process' setting
        torch.set_num_threads(count)
        back = threading.Thread(target=torch.set_num_threads, args=(everywhere,))
        back.start()
        back.join()


def in_background(items: Iterable[T], ahead: int = 4, threads: int | None = None) -> Generator[T]:
    """The same items in the same order, made by a thread that works up to ``ahead`` items in advance.

    ``threads`` limits torch's threads in that step: steps that each use all cores are in each other's way. An
    exception of the step comes out here. When the consumer stops early, closes the generator or is interrupted, the
    thread ends and closes ``items``, so steps that are chained end from the last to the first.
    """
    ready: queue.Queue[T | _End | _Failure] = queue.Queue(ahead)
    stopped = threading.Event()

    def offer(item: T | _End | _Failure) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_LOOK_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        source: Iterator[T] = iter(items)
        try:
            if threads is not None:
                use_threads(threads)
            for item in source:
                if not offer(item):
                    return
            offer(_End())
        except BaseException as error:  # it is raised again where the items are used
            offer(_Failure(error))
        finally:
            if isinstance(source, Generator):
                source.close()

    thread = threading.Thread(target=work, daemon=True, name="ffavatar-stage")
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=_LOOK_S)  # with a limit, so that Ctrl-C is noticed on every system
            except queue.Empty:
                continue
            if isinstance(item, _End):
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join(timeout=10)
