"""Many clients at once against a server on this computer: `python benchmarks/serve_load.py --clients 64`.

Each client uploads a photo of its own, makes an avatar of it, follows the events (hanging up and resuming half-way) and
fetches the container; told 503, it waits as long as it was told and comes again. With --stand-in the two child
processes are the tests' stand-ins, so that the HTTP side is measured alone, with more jobs than the model could do.
Prints a Markdown table: what happened, how long it took, and the memory of each process. Exit code 1 where a client got
an error other than 503, or anything was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FAKES = ROOT / "tests" / "serve" / "fakes.py"


@dataclass
class Tally:
    """What all clients met."""

    statuses: Counter[int] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    avatars: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    resumed: int = 0

    def took(self, what: str, began: float) -> None:
        self.seconds.setdefault(what, []).append(time.monotonic() - began)


def photo(number: int, stand_in: bool) -> bytes:
    """A portrait that differs from all others in one pixel, so that it is a photo of its own."""
    if stand_in:
        return f"good {number}".encode()
    from skimage.data import astronaut

    pixels = astronaut()[:360, 60:420].copy()
    pixels[0, 0] = (number % 256, number // 256, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def insist(client: httpx.AsyncClient, tally: Tally, method: str, url: str, **options: object) -> httpx.Response:
    """A request, again and again while the answer is 503."""
    while True:
        answer = await client.request(method, url, **options)  # type: ignore[arg-type]
        tally.statuses[answer.status_code] += 1
        if answer.status_code != 503:
            if answer.status_code >= 400:
                tally.troubles.append(f"{method} {url}: {answer.status_code} {answer.text[:200]}")
            return answer
        await asyncio.sleep(float(answer.headers["retry-after"]) * (0.5 + np.random.default_rng().random()))


async def follow(client: httpx.AsyncClient, tally: Tally, job: str) -> dict[str, object]:
    """The job as its last event has it; the stream is left once after three events, and resumed."""
    last, seen, hung_up = "0", 0, False
    while True:
        async with client.stream("GET", f"/api/jobs/{job}/events", headers={"Last-Event-ID": last}) as answer:
            tally.statuses[answer.status_code] += 1
            if answer.status_code == 503:
                await asyncio.sleep(float(answer.headers["retry-after"]))
                continue
            name = ""
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    if int(line[4:]) <= int(last):
                        tally.troubles.append(f"job {job}: event {line[4:]} came after {last}")
                    last, seen = line[4:], seen + 1
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: ") and name == "end":
                    return json.loads(line[6:])
                if seen == 3 and not line and not hung_up:
                    hung_up = True
                    tally.resumed += 1
                    break


async def one_client(base: str, number: int, jobs: int, stand_in: bool, tally: Tally) -> None:
    limits = httpx.Limits(max_connections=2)
    async with httpx.AsyncClient(base_url=base, timeout=600, limits=limits) as client:
        for turn in range(jobs):
            began = time.monotonic()
            data = photo(number * jobs + turn, stand_in)
            sent = (await insist(client, tally, "POST", "/api/photos", files={"files": ("me.png", data)})).json()
            tally.took("upload and check", began)
            body = {"kind": "reconstruct", "photos": [sent["photos"][0]["id"]], "name": f"{number}-{turn}"}
            waiting = time.monotonic()
            key = {"Idempotency-Key": f"{number}-{turn}"}
            job = (await insist(client, tally, "POST", "/api/jobs", json=body, headers=key)).json()
            tally.took("until the queue took it", waiting)
            tally.jobs.add(job["id"])
            final = await follow(client, tally, job["id"])
            if final["state"] != "done":
                tally.troubles.append(f"job {job['id']}: {final['state']} {final['error']}")
                continue
            avatar = (await insist(client, tally, "GET", f"/api/avatars/{final['avatar']}")).json()
            container = await insist(client, tally, "GET", avatar["container"])
            if len(container.content) != avatar["bytes"] or avatar["name"] != f"{number}-{turn}":
                tally.troubles.append(f"avatar {avatar['id']} is not the one asked for")
            tally.avatars.add(avatar["id"])
            tally.took("photo to container", began)


def memory(pid: int) -> tuple[int, int]:
    """(now, most ever) resident MB of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"{name}:\s+(\d+)", text)[1]) // 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[index,return-value]


def below(pid: int) -> dict[str, int]:
    """The worker's and the checker's process ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            words = (path / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if int(parent) == pid:
            found["checker" if any("checker" in word for word in words) else "worker"] = int(path.name)
    return found


def stand_in_server(folder: Path) -> None:
    """A server whose child processes are the tests' stand-ins."""
    from ffavatar.serve.server import run
    from ffavatar.serve.settings import Settings

    plain = Settings(folder, port=0, devices=("cpu",))
    worker, checker = ((sys.executable, str(FAKES), kind) for kind in ("worker", "checker"))
    run(replace(plain, worker=worker, checker=checker), lambda text: print(text, flush=True))


async def measure(base: str, pid: int, clients: int, jobs: int, stand_in: bool) -> tuple[Tally, list[str]]:
    tally = Tally()
    async with httpx.AsyncClient(base_url=base, timeout=600) as client:
        await client.post("/api/photos", files={"files": ("warm.png", photo(10**4, stand_in))})
    start = {"server": memory(pid)[0], **{name: memory(child)[0] for name, child in below(pid).items()}}
    samples: list[int] = []

    async def watch() -> None:
        while True:
            samples.append(memory(pid)[0])
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    await asyncio.gather(*(one_client(base, number, jobs, stand_in, tally) for number in range(clients)))
    wall = time.monotonic() - began
    watching.cancel()
    half = samples[len(samples) // 2 :] or samples
    async with httpx.AsyncClient(base_url=base, timeout=60) as client:
        listed = {avatar["id"] for avatar in (await client.get("/api/avatars")).json()["avatars"]}
        metrics = (await client.get("/metrics")).text
    asked = clients * jobs
    if not (len(tally.jobs) == len(tally.avatars) == asked and tally.avatars == listed):
        tally.troubles.append(f"{asked} asked, {len(tally.jobs)} jobs, {len(tally.avatars)} got, {len(listed)} listed")
    if "ffavatar_child_ends_total" in re.sub(r"#.*", "", metrics):
        tally.troubles.append("a child process died")
    rows = [
        f"| clients, jobs | {clients}, {asked} |",
        f"| all done in | {wall:.1f} s ({asked / wall:.2f} avatars/s) |",
        f"| answers | {', '.join(f'{count} x {status}' for status, count in sorted(tally.statuses.items()))} |",
        f"| event streams left and resumed | {tally.resumed} |",
        f"| errors other than 503; lost | {len(tally.troubles)}; {asked - len(tally.avatars & listed)} |",
    ]
    for what, taken in tally.seconds.items():
        low, high = np.percentile(taken, [50, 95])
        rows.append(f"| {what}, median / 95 % / most | {low:.2f} / {high:.2f} / {max(taken):.2f} s |")
    counts = f"{start['server']} / {max(samples)} / {max(half)} MB"
    rows.append(f"| server's memory before / most / most in the second half | {counts} |")
    for name, child in below(pid).items():
        rows.append(f"| {name}'s memory before / most | {start.get(name, 0)} / {memory(child)[1]} MB |")
    return tally, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=1, help="jobs of each client, one after the other")
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--serve-stand-in", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve_stand_in:
        stand_in_server(given.serve_stand_in)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ffavatar", "serve", "--port", "0", "--no-browser", "--folder", folder]
        if given.stand_in:
            command = [sys.executable, __file__, "--serve-stand-in", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            base = re.search(r"http://\S+", process.stdout.readline())
            assert base, "the server does not start"
            tally, rows = asyncio.run(measure(base[0], process.pid, given.clients, given.jobs, given.stand_in))
        finally:
            process.terminate()
            process.wait(30)
    print(
        f"{'stand-ins for the child processes' if given.stand_in else 'the real model'}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n\n| | |\n| --- | --- |"
    )
    print("\n".join(rows))
    for trouble in tally.troubles[:20]:
        print(trouble, file=sys.stderr)
    sys.exit(bool(tally.troubles))


if __name__ == "__main__":
    main()
