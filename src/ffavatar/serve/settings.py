"""Everything that decides how a server behaves, as plain values."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ffavatar.errors import InputError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Limits:
    """What one request may bring. Bytes are counted while they arrive; pixels and seconds are read from headers, in a
    child process, before anything is decoded."""

    photos: int = 16
    """Files in one upload, and photos in one job."""
    photo_bytes: int = 40 * 2**20
    photo_pixels: int = 60_000_000
    film_bytes: int = 300 * 2**20
    film_seconds: float = 120.0
    film_pixels: int = 3840 * 2160
    motion_bytes: int = 32 * 2**20
    json_bytes: int = 64 * 2**10
    """Of a request that is no upload."""
    queue: int = 16
    """Jobs that wait; further ones are told to come back."""
    checks: int = 64
    """Uploads that wait to be looked at."""
    streams: int = 256
    """Event streams at once."""
    stored_bytes: int = 8 * 2**30
    """Of uploads on the disk together."""
    free_bytes: int = 256 * 2**20
    """Space that uploads and results leave free on the disk."""
    jobs_kept: int = 1000
    """Records of ended jobs; the oldest are forgotten, with their files."""
    pause_s: float = 20.0
    """Between two pieces of a request's body."""
    check_s: float = 60.0
    """For looking at one photo or film."""
    check_bytes: int = 2 * 2**30
    """Memory that looking at one photo or film may take, beyond what the networks take."""
    job_s: float = 3600.0
    """For one job; what takes longer is given up."""
    job_bytes: int = 12 * 2**30
    """Memory that jobs may take on a CPU, beyond what the networks take."""


@dataclass(frozen=True)
class Settings:
    """One server."""

    folder: Path
    """Where avatars, results and uploads are. One server at a time uses a folder."""
    host: str = "127.0.0.1"
    port: int = 8460
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    """Names beyond the loopback's by which browsers may reach this server."""
    devices: tuple[str, ...] = ("auto",)
    """One worker process for each: auto, cpu, mps, cuda, cuda:0, cuda:1, ..."""
    weights: Path | None = None
    webcam: Path | None = None
    """Folder with the webcam tracker's files; by default ``webcam`` in ``folder``, where there is one."""
    keep_uploads_s: float = 3600.0
    keep_results_s: float = 7 * 24 * 3600.0
    personal_steps: int = 200
    grace_s: float = 10.0
    """How long the running job may go on after the server was told to stop; then it is set aside for the next start."""
    cancel_s: float = 1.5
    """How long a cancelled job has to end by itself; then its process is killed."""
    limits: Limits = field(default_factory=Limits)
    worker: tuple[str, ...] = (sys.executable, "-m", "ffavatar.serve.worker")
    """The program that does the jobs; ``--device DEVICE`` and more is added to it."""
    checker: tuple[str, ...] = (sys.executable, "-m", "ffavatar.serve.checker")
    """The program that looks at uploads."""

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii()):
            raise InputError(f"The token must have at least {SHORTEST_TOKEN} plain characters; give a longer --token.")
        if self.host not in LOOPBACK and self.token is None:
            raise InputError(
                f"On {self.host} others could reach this server; give a --token, or leave --host at 127.0.0.1."
            )
        if not self.devices:
            raise InputError("No device to work on was given; give at least one --device.")
        if min(self.keep_uploads_s, self.keep_results_s) <= 0:
            raise InputError("Uploads and results must be kept for more than no time; give a larger number.")

    @property
    def host_names(self) -> frozenset[str]:
        """Names, in lower case and without port, that a Host header may have."""
        own = () if self.host in ("0.0.0.0", "::") else (self.host,)
        return frozenset(name.lower().strip("[]") for name in (*LOOPBACK, *own, *self.allowed_hosts))


def default_folder() -> Path:
    """Where the system keeps data of programs: XDG_DATA_HOME, Application Support or LOCALAPPDATA."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "ffavatar"
