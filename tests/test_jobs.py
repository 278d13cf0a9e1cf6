"""Crews of processes and of Ray nodes: killed workers lose nothing, and nothing finished is done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_jobs import Piece, begun, ended, unpicklable, work

from ffavatar.errors import InputError
from ffavatar.jobs import Crew, Done, _join, import_ray, in_order, run_jobs


def pieces(folder: Path, count: int, seconds: float = 0.0, **special: Piece) -> list[Piece]:
    return [special.get(f"p{k}", Piece(f"p{k}", folder, seconds)) for k in range(count)]


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    done = list(run_jobs(work, pieces(tmp_path, 3), Crew()))
    assert [d.result for d in done] == [f"p{k} by {os.getpid()}" for k in range(3)]
    assert [d.index for d in done] == [0, 1, 2] and ended(tmp_path) == {"p0": 1, "p1": 1, "p2": 1}


def test_processes_share_the_jobs_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    """p1 kills the first worker that takes it, p4 every one."""
    jobs = pieces(tmp_path, 6, p1=Piece("p1", tmp_path, kill=1), p4=Piece("p4", tmp_path, kill=99))
    done = sorted(run_jobs(work, jobs, Crew(2)), key=lambda one: one.index)
    assert [d.index for d in done] == list(range(6))
    assert [d.result is None for d in done] == [False] * 4 + [True, False]
    assert done[4].error == "its worker process died 3 times (killed, or out of memory)"
    assert done[1].attempts == 2 and done[0].attempts == 1
    assert ended(tmp_path) == {f"p{k}": 1 for k in range(6) if k != 4}
    assert begun(tmp_path)["p4"] == 3
    assert str(os.getpid()) not in {(d.result or "").split(" by ")[-1] for d in done}


def test_an_exception_of_the_work_is_raised_and_workers_end(tmp_path: Path) -> None:
    jobs = pieces(tmp_path, 4, seconds=0.02, p0=Piece("p0", tmp_path, fail=True))
    with pytest.raises(ValueError, match="p0 cannot be done"):
        list(run_jobs(work, jobs, Crew(2)))
    import multiprocessing

    assert multiprocessing.active_children() == []


def test_what_cannot_be_sent_back_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match="cannot be sent back"):
        list(run_jobs(unpicklable, [1, 2], Crew(2)))


def test_order_is_kept_on_request() -> None:
    late = [Done(k, k, k) for k in (2, 0, 1, 4, 3)]
    assert [one.index for one in in_order(late)] == [0, 1, 2, 3, 4]


def test_a_missing_ray_and_no_workers_are_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ffavatar\[bulk\]"):
        list(run_jobs(work, pieces(tmp_path, 2), Crew(1, "local")))
    with pytest.raises(InputError, match="at least 1"):
        run_jobs(work, pieces(tmp_path, 2), Crew(0))


@pytest.mark.parametrize("failures", [2, 3])
def test_ray_is_started_again_on_a_busy_machine(failures: int) -> None:
    class Busy:
        """Ray that is not up in time at first."""

        started, stopped = 0, 0

        def init(self, **options: object) -> None:
            assert options["num_cpus"] == 2
            self.started += 1
            if self.started <= failures:
                raise Exception("timed out during startup")

        def shutdown(self) -> None:
            self.stopped += 1

    ray = Busy()
    if failures < 3:
        _join(ray, Crew(2, "local"))
    else:
        with pytest.raises(InputError, match="does not start on this machine"):
            _join(ray, Crew(2, "local"))
    assert (ray.started, ray.stopped) == (3, failures)


@pytest.mark.slow
def test_a_worker_killed_from_outside_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL to whichever process is at work on p3, midway."""
    jobs = pieces(tmp_path, 10, seconds=0.3)
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for mark in tmp_path.glob("p3.begun.*"):
                time.sleep(0.1)
                killed.append(int(mark.name.split(".")[2]))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    done = list(run_jobs(work, jobs, Crew(2)))
    thread.join()
    assert killed and sorted(d.index for d in done) == list(range(10)) and not any(d.error for d in done)
    assert ended(tmp_path) == {f"p{k}": 1 for k in range(10)}
    assert begun(tmp_path) == {f"p{k}": 2 if k == 3 else 1 for k in range(10)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_ray_on_this_machine_replaces_killed_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_ray()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    jobs = pieces(tmp_path, 5, p2=Piece("p2", tmp_path, kill=1), p3=Piece("p3", tmp_path, kill=99))
    done = sorted(run_jobs(work, jobs, Crew(2, "local")), key=lambda one: one.index)
    assert [bool(d.error) for d in done] == [False, False, False, True, False]
    assert ended(tmp_path) == {"p0": 1, "p1": 1, "p2": 1, "p4": 1} and begun(tmp_path)["p3"] == 3
    with pytest.raises(ValueError, match="x cannot be done"):
        list(run_jobs(work, [Piece("x", tmp_path, fail=True), *jobs[:2]], Crew(1, "local")))
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(("Prefetcher", "Streaming"))]
    assert not left  # they would end this process with their next call of Ray


@pytest.mark.slow
def test_ray_starts_when_told_to_and_never_by_itself() -> None:
    """A call of Ray without a cluster fails; it made one of its own when a thread was late after ``shutdown``."""
    code = (
        "from ffavatar.jobs import import_ray\nray = import_ray()\n"
        "try:\n    ray.put(1)\nexcept Exception as error:\n    print(type(error).__name__, ray.is_initialized())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "False" in told.stdout and "True" not in told.stdout, told.stdout + told.stderr[-500:]


@pytest.mark.slow
def test_no_cluster_is_said_plainly(tmp_path: Path) -> None:
    code = (
        "from ffavatar.errors import InputError\nfrom ffavatar.jobs import Crew, run_jobs\n"
        "try:\n    list(run_jobs(abs, [1, 2], Crew(1, 'auto')))\nexcept InputError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "No Ray cluster answers at 'auto'" in told.stdout, told.stderr[-500:]
