"""Stand-ins for the two child processes, without networks: what they do is said by the uploads themselves.

Run as ``python fakes.py checker --memory N`` or ``python fakes.py worker --device cpu --memory N``. A photo is one line
of text: ``good`` is kept, ``bad`` refused, ``hang`` and ``die`` are hostile; further words tell the worker what to do.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from ffavatar.serve.inside import Line
from ffavatar.serve.messages import (
    AvatarMade,
    Cancel,
    Cancelled,
    CheckFilm,
    CheckMotion,
    CheckPhoto,
    Done,
    Failed,
    FilmVerdict,
    Message,
    MotionVerdict,
    PhotoVerdict,
    Ready,
    Stage,
    Task,
)


def container(gaussians: int = 3, about: str = "{}") -> bytes:
    """The smallest file whose header looks like an avatar's."""
    header = {
        "__metadata__": {"format": "ffavatar", "version": "1", "about": about},
        "opacities": {"dtype": "U8", "shape": [gaussians], "data_offsets": [0, gaussians]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(gaussians)


def checker() -> None:
    line = Line()
    line.send(Ready("cpu"))
    while True:
        asked = line.next()
        assert isinstance(asked, CheckPhoto | CheckFilm | CheckMotion)
        words = Path(asked.path).read_bytes()[:200].decode("latin-1").split()
        if "hang" in words:
            time.sleep(60)
        if "die" in words:
            os._exit(3)
        if isinstance(asked, CheckFilm):
            line.send(FilmVerdict("" if "good" in words else f"{asked.name} is no film.", 1.0, 64, 64, 25.0))
        elif isinstance(asked, CheckMotion):
            line.send(MotionVerdict("" if "good" in words else f"{asked.name} is no motion.", 50, 25.0))
        elif "good" in words:
            folder = Path(asked.folder)
            folder.mkdir()
            (folder / "crop.webp").write_bytes(b"crop")
            (folder / "matte.webp").write_bytes(b"matte")
            (folder / "words").write_text(" ".join(words))
            line.send(PhotoVerdict(True, "", 64, 48, 1, {"name": asked.name}))
        else:
            line.send(PhotoVerdict(False, f"{asked.name} is no photo: use another."))


def worker() -> None:
    cancelled = threading.Event()

    def at_once(message: Message) -> bool:
        if isinstance(message, Cancel):
            cancelled.set()
        return isinstance(message, Cancel)

    line = Line(at_once)
    line.send(Ready("cpu"))

    def make(folder: Path, personalized: bool) -> None:
        path = folder / f"made-{time.monotonic_ns()}.safetensors"
        path.write_bytes(container(about='{"personalized": "1"}' if personalized else "{}"))
        path.with_suffix(".webp").write_bytes(b"thumbnail")
        line.send(AvatarMade(str(path), 3, personalized, str(path.with_suffix(".webp"))))

    while True:
        task = line.next()
        assert isinstance(task, Task)
        cancelled.clear()
        folder, words = Path(task.folder), []
        for photo in task.photos:
            words += (Path(photo) / "words").read_text().split()
        line.send(Stage("reading", 0, 2))
        if "crash" in words:
            os._exit(5)
        if "fails" in words:
            line.send(Failed("These photos are of no use; take others.", True))
            continue
        if "stuck" in words:
            time.sleep(60)  # hears of no cancelling
        made = 0
        if task.kind == "reconstruct" and not task.container:
            make(folder, False)
        if task.personalize or task.kind == "personalize":
            (folder / "checkpoint.pt").write_text("half way")
            for step in range(3):
                line.send(Stage("personalizing", step + 1, 3))
                make(folder, True)
            if "useless" in words:  # what the guard of a personalization says at its end
                make(folder, False)
            if "fails-late" in words:
                line.send(Failed("The disk is full.", True))
                continue
        while "slow" in words and not cancelled.wait(0.02):
            made += 1
            line.send(Stage("working", made, 1000))
        if cancelled.is_set():
            line.send(Cancelled())
            continue
        files = {"drive": ("film.mp4", "motion.json"), "export": (task.name,)}.get(task.kind, ())
        for name in files:
            (folder / name).write_bytes(bytes(range(256)))
        told = {} if task.look is None else {"reconstruct": f"look {task.look}"}
        told |= {"drive": f"relative {task.relative}, same person {task.same_person}"}
        if task.kind == "export" and task.name.startswith("custom"):
            moved = Path(task.motion).name
            told["export"] = (
                f"{task.turn_deg} {task.expression} {moved} {task.frame} {task.scale} {task.size} {task.background} "
                f"{task.allow_flame}"
            )
        line.send(Done(files, (told.get(task.kind, "one note"),)))


if __name__ == "__main__":
    {"checker": checker, "worker": worker}[sys.argv[1]]()
