"""``python -m ffavatar.train`` has the options of ``ffavatar train``, and says what cannot be in a sentence."""

from __future__ import annotations

import argparse
import enum

import pytest
import typer

from ffavatar.cli import build_app
from ffavatar.train import __main__ as entry
from ffavatar.train.loop import Pace

CHOSEN = ["avatar", "--data", "DATA", "-o", "RUN"]


def test_both_commands_have_the_same_options_and_defaults():
    command = typer.main.get_command(build_app()).commands["train"].commands["avatar"]
    theirs = {
        name: (p.required, p.default.value if isinstance(p.default, enum.Enum) else p.default or None)
        for p in command.params
        for name in (*p.opts, *p.secondary_opts)
    }
    mine = {
        name: (action.required, action.default or None)
        for action in entry.options_parser()._actions
        for name in action.option_strings
        if not isinstance(action, argparse._HelpAction)
    }
    assert mine == theirs


def test_options_reach_the_run(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(entry, "train", lambda *given, **named: seen.append((given, named)) or "WEIGHTS")
    words = ["--preset", "tiny", "--steps", "7", "--seed", "3", "--batch", "2", "--stream", "--no-perceptual"]
    words += ["--set", "targets=6", "--set", "learn=both", "--people", "5", "--weights", "START", "--vit", "VIT"]
    words += ["--device", "cpu", "--save-every", "9.5", "--pictures-every", "4", "--tensorboard", "--threads", "1"]
    assert entry.main([*CHOSEN, *words]) == 0 and capsys.readouterr().out == "WEIGHTS\n"
    ((recipe, *places), named) = seen[0]
    assert [str(place) for place in places] == ["DATA", "RUN", "START", "5"]
    assert (recipe.preset, recipe.steps, recipe.seed, recipe.batch, recipe.stream) == ("tiny", 7, 3, 2, True)
    assert (recipe.weight_lpips, recipe.targets, recipe.learn) == (0.0, 6, "both")
    assert (str(named["vit"]), named["device"]) == ("VIT", "cpu")
    assert named["pace"] == Pace(9.5, pictures_every=4, tensorboard=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "preset=tiny"], "use --preset tiny"), (["--set", "clip=nan"], "clip must be"),
        (["--preset", "paper"], "no stage 'avatar'"), ([], "no synthetic people"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(capsys, words, told):
    assert entry.main([*CHOSEN, *words]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


@pytest.mark.parametrize("words", [["--preset", "nope"], ["--people", "0"], ["--save-every", "-1"], ["--steps", "x"]])
def test_bad_usage_names_the_option(capsys, words):
    with pytest.raises(SystemExit) as caught:
        entry.main([*CHOSEN, *words])
    err = capsys.readouterr().err
    assert caught.value.code == 2 and words[0] in err and "Traceback" not in err


def test_stopped_is_130(monkeypatch, capsys):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "train", stopped)
    assert entry.main(CHOSEN) == 130 and "interrupted" in capsys.readouterr().err
