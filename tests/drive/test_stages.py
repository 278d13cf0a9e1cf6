"""Steps side by side: order, errors, early ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest
import torch

from ffavatar.drive.stages import in_background, use_threads


def stage_threads() -> int:
    return sum(t.name == "ffavatar-stage" for t in threading.enumerate())


def test_items_come_in_order_through_chained_stages() -> None:
    first = in_background(range(100), ahead=3)
    second = in_background((x * x for x in first), ahead=3)
    assert list(second) == [x * x for x in range(100)]
    assert stage_threads() == 0


def test_work_is_ahead_but_bounded() -> None:
    made = []

    def items() -> Generator[int]:
        for i in range(50):
            made.append(i)
            yield i

    stream = in_background(items(), ahead=4)
    next(stream)
    deadline = time.monotonic() + 5
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 6  # one used, four waiting, one in the hand
    stream.close()


def test_error_comes_out_where_the_items_are_used() -> None:
    def items() -> Generator[int]:
        yield 1
        raise KeyError("inside")

    stream = in_background(items())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="inside"):
        next(stream)
    assert stage_threads() == 0


def test_closing_the_last_stage_closes_the_first() -> None:
    closed = threading.Event()

    def items() -> Generator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    def doubled(source: Generator[int]) -> Generator[int]:
        try:
            for x in source:
                yield 2 * x
        finally:
            source.close()

    stream = in_background(doubled(in_background(items())))
    assert next(stream) == 0
    stream.close()
    assert closed.wait(5) and stage_threads() == 0


def test_a_stage_may_use_fewer_of_torchs_threads_than_the_others() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = list(in_background((torch.get_num_threads() for _ in range(2)), threads=2))
        later: list[int] = []
        new = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        new.start()
        new.join()
        assert seen == [2, 2]
        assert torch.get_num_threads() == 3 and later == [3]  # here, and in threads to come
        many = [in_background((torch.get_num_threads() for _ in range(1)), threads=1 + n % 2) for n in range(40)]
        starters = [threading.Thread(target=next, args=(stream,)) for stream in many]
        for starter in starters:  # at the same time, as two films in one process might
            starter.start()
        for starter in starters:
            starter.join()
        assert list(in_background(torch.get_num_threads() for _ in range(1))) == [3]
    finally:
        torch.set_num_threads(before)


def test_a_torch_with_one_pool_for_all_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool")
    before = torch.get_num_threads()
    use_threads(before + 1)
    assert torch.get_num_threads() == before
