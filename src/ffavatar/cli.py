"""The ``ffavatar`` command: a table of plain typed functions. They are in ``commands``, the work is elsewhere."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from ffavatar.commands.avatars import demo, estimate, inspect, reconstruct, render
from ffavatar.commands.data import PREPARE
from ffavatar.commands.driving import animate, live, motion
from ffavatar.commands.evaluation import evaluate
from ffavatar.commands.exporting import export
from ffavatar.commands.personal import personalize
from ffavatar.commands.progress import one_line
from ffavatar.commands.serving import serve
from ffavatar.commands.submission import submission
from ffavatar.commands.training import TRAIN
from ffavatar.errors import InputError

EXIT_FAILURE, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130


COMMANDS: tuple[Callable[..., None], ...] = (
    reconstruct, personalize, animate, live, render, estimate, motion, export, serve, evaluate, submission,
    inspect, demo,
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        from ffavatar import __version__

        typer.echo(f"ffavatar {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
) -> None:
    """From a few photos to an animatable 3D head avatar. Use it only with the consent of the person shown."""


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its errors turned into one sentence on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            typer.echo(f"ffavatar: {one_line(error)}", err=True)
            raise typer.Exit(EXIT_INPUT) from None
        except KeyboardInterrupt:
            typer.echo("ffavatar: interrupted; nothing was left half-written.", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            hint = "run again with --debug to see where"
            if os.environ.get("FFAVATAR_DEBUG"):
                traceback.print_exc()
                hint = "see above where"
            what = one_line(error)[:300] or "no message"
            typer.echo(f"ffavatar: unexpected {type(error).__name__} ({what}); {hint}.", err=True)
            raise typer.Exit(EXIT_FAILURE) from None

    return run


def build_app() -> typer.Typer:
    """The command line as typer sees it."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    app.callback()(_options)
    for command in COMMANDS:
        app.command()(_guarded(command))
    prepare = typer.Typer(no_args_is_help=True, help="Pictures of people to shards for training and evaluation.")
    for command in PREPARE:
        prepare.command()(_guarded(command))
    app.add_typer(prepare, name="prepare")
    train = typer.Typer(no_args_is_help=True, help="Train a model: stage by stage; under torchrun on several GPUs.")
    for command in TRAIN:
        train.command(command.__name__)(_guarded(command))
    app.add_typer(train, name="train")
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 (unexpected), 2 (bad input or usage) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("FFAVATAR_DEBUG"))
    if debug:  # allowed anywhere, also after the command
        arguments = [a for a in arguments if a != "--debug"]
        os.environ["FFAVATAR_DEBUG"] = "1"
    # Before torch is loaded: its OpenMP threads would spin while they wait, and the stages of a film, each with its
    # own, starve each other. On two busy cores one photo took 28 s so, and takes 0.6 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # a polite kill tidies up as Ctrl-C does
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")  # a library's warning is no help to who types a command
        build_app()(args=arguments, prog_name="ffavatar")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
