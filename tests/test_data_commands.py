"""The commands of data and evaluation, as a command line sees them."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from ffavatar.commands.data import PREPARE
from ffavatar.commands.evaluation import evaluate
from ffavatar.data.shards.format import read_manifest


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    """As cli.py hangs them in."""
    whole, prepare = typer.Typer(), typer.Typer()
    whole.command()(evaluate)
    for command in PREPARE:
        prepare.command()(command)
    whole.add_typer(prepare, name="prepare")
    return whole


def test_every_command_parses_and_has_help(app: typer.Typer) -> None:
    names = ["synthetic", "synthetic-bench", "photos", "video", "ava256", "nersemble", "split", "inspect"]
    assert [command.__name__.replace("_", "-") for command in PREPARE] == names
    for words in (["evaluate"], *(["prepare", name] for name in names)):
        told = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert told.exit_code == 0 and "--output" in told.stdout, (words, told.output)


def test_commands_reach_the_work(app: typer.Typer, tmp_path) -> None:
    made = ["prepare", "synthetic", "-o", str(tmp_path / "s"), "--people", "1", "--shots", "1", "--size", "64"]
    told = CliRunner().invoke(app, [*made, "--around", "2"])
    assert told.exit_code == 0 and "1 people, 3 views in 1 shards" in told.stdout, told.output
    settings = read_manifest(tmp_path / "s").provenance.settings
    assert (settings["shots"], settings["around"]) == (1, 2)
    told = CliRunner().invoke(app, ["prepare", "inspect", str(tmp_path / "s"), "--check"])
    assert told.exit_code == 0 and "CC0-1.0" in told.stdout
    for words, message in (
        (["prepare", "video", str(tmp_path / "none"), "-o", str(tmp_path / "v")], "does not exist"),
        (["prepare", "ava256", str(tmp_path), "-o", str(tmp_path / "a")], "no Ava-256 capture"),
        (["prepare", "split", str(tmp_path), "-o", str(tmp_path / "a.json")], "no Ava-256 capture"),
        (["evaluate", str(tmp_path)], "not an index of clips"),
    ):
        told = CliRunner().invoke(app, words)
        assert told.exit_code == 1 and message in str(told.exception), words
