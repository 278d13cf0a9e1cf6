"""What all routes work with."""

from __future__ import annotations

from dataclasses import dataclass

from ffavatar.serve.checks import Checks
from ffavatar.serve.jobs import Jobs
from ffavatar.serve.settings import Settings
from ffavatar.serve.store import Store


@dataclass
class Parts:
    """The parts of one server."""

    settings: Settings
    store: Store
    jobs: Jobs
    checks: Checks
