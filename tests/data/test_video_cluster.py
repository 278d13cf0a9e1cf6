"""Films looked through by several processes and by two Ray nodes, some killed midway: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_people_films import make_embed, people_films

from ffavatar.data.shards import ShardReader
from ffavatar.data.video.curate import Plan, curate, list_films
from ffavatar.jobs import import_ray

pytestmark = pytest.mark.slow
FILMS, FRAMES, SIZE = 6, 18, 96


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    people_films(folder, range(40, 40 + FILMS), frames=FRAMES // 6)
    return folder


@pytest.fixture(scope="module")
def alone(films: Path, tmp_path_factory) -> dict[str, str]:
    """The shards' sha256 that one undisturbed process makes."""
    out = tmp_path_factory.mktemp("alone")
    total = curate(list_films(films), out / "shards", out / "work", Plan(SIZE, fewest=1), make_embed)
    assert total.tracks >= FILMS - 2 and total.frames == FILMS * FRAMES, (
        "hardly a face was found: nothing would be tested"
    )
    return digests(out / "shards")


def digests(shards: Path) -> dict[str, str]:
    return {row["name"]: row["sha256"] for row in json.loads((shards / "manifest.json").read_text())["shards"]}


class Watch:
    """Notes each work file when it first appears, and every one that is written again. From the ``on_count``-th on,
    ``act`` is tried until it says that it has acted."""

    def __init__(self, work: Path, on_count: int, act: Callable[[], bool]):
        self.work, self.on_count, self.act = work, on_count, act
        self.seen: dict[str, tuple[int, int]] = {}
        self.again: list[str] = []
        self.at_kill = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for file in self.work.glob("p*.npz"):
                stat = file.stat()
                now = (stat.st_ino, stat.st_mtime_ns)
                if self.seen.setdefault(file.name, now) != now:
                    self.again.append(file.name)
            count = len(self.seen)
            if self.at_kill < 0 and count >= self.on_count and self.act():
                self.at_kill = count
            time.sleep(0.01)


def test_a_killed_process_loses_no_film(films: Path, alone: dict[str, str], tmp_path: Path) -> None:
    def kill() -> bool:
        import multiprocessing

        victims = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        for victim in victims[:1]:
            os.kill(victim, signal.SIGKILL)
        return bool(victims)

    with Watch(tmp_path / "work", 2, kill) as watch:
        curate(list_films(films), tmp_path / "s", tmp_path / "work", Plan(SIZE, fewest=1, workers=2), make_embed)
    assert 2 <= watch.at_kill < FILMS and len(watch.seen) == FILMS and watch.again == []
    assert digests(tmp_path / "s") == alone


def started(start: Callable[[], Any]) -> Any:
    """Ray gives its processes 30 s to come up, which is not enough on a busy machine."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:
            last = error
    raise last


@pytest.mark.filterwarnings("ignore")  # Ray leaves processes of a start that took too long to the garbage collector
def test_two_ray_nodes_one_killed_midway(films: Path, alone: dict[str, str], tmp_path: Path, monkeypatch) -> None:
    """The second node is killed (SIGKILL to its raylet, its workers with it) while it is at a film."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    ray = import_ray()
    from ray.cluster_utils import Cluster

    cluster = started(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}))
    try:
        second = started(lambda: cluster.add_node(num_cpus=1))
        plan = Plan(SIZE, fewest=1, ray=cluster.address)

        def kill() -> bool:
            free = ray._private.state.available_resources_per_node().get(second.node_id)
            busy = free is not None and free.get("CPU", 0.0) == 0.0  # at work on a film
            if busy:
                cluster.remove_node(second, allow_graceful=False)
            return busy

        with Watch(tmp_path / "work", 1, kill) as watch:
            total = curate(list_films(films), tmp_path / "s", tmp_path / "work", plan, make_embed)
        assert 1 <= watch.at_kill < FILMS, "the node was not killed midway, at work"
        assert len(watch.seen) == FILMS and watch.again == []
        assert digests(tmp_path / "s") == alone and total.frames == FILMS * FRAMES
        people = [sample.key for sample in ShardReader(tmp_path / "s")]
        assert len(people) == len(set(people)) == total.people
    finally:
        ray.shutdown()
        cluster.shutdown()
