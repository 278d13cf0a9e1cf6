"""What a command line says of a run, as its recipe: for ``ffavatar train`` and ``python -m ffavatar.train``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ffavatar.errors import InputError
from ffavatar.train.recipe import Recipe, recipe_for


def chosen_recipe(
    stage: str, preset: str, given: Mapping[str, Any], perceptual: bool = True, words: Sequence[str] = ()
) -> Recipe:
    """The recipe of a stage with the fields ``given`` (None: the recipe's own), without LPIPS and the discriminator
    unless ``perceptual``, and last with ``words`` as ``parse_fields`` reads them.

    Raises:
        InputError: no such stage, preset or field, or a value that cannot be.
    """
    recipe = recipe_for(stage, preset)
    changes = {name: value for name, value in given.items() if value is not None}
    if not perceptual:
        changes |= {"weight_lpips": 0.0, "weight_adversarial": 0.0}
    return replace(recipe, **changes | parse_fields(recipe, words))


def parse_fields(recipe: Recipe, words: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` of any field of the recipe but its stage and preset, read by the type that it has there.

    Raises ``InputError`` for an unknown name or a value of another type.
    """
    known = asdict(recipe)
    found: dict[str, Any] = {}
    switches = {"true": True, "false": False}
    for word in words:
        name, equals, text = word.partition("=")
        if name == "preset":  # a recipe of its own, whose other fields differ
            raise InputError(f"--set {word} cannot change the model's size; use --preset {text or 'NAME'}.")
        if not equals or name not in known or name == "stage":
            raise InputError(f"--set {word} names no field of the recipe; see `ffavatar.train.recipe.Recipe`.")
        kind = type(known[name])
        try:
            if kind is bool:
                found[name] = switches[text.lower()]
            elif kind in (int, float):
                found[name] = kind(text)
            else:  # words; those that are None by default too
                found[name] = None if text.lower() == "none" else text
        except (ValueError, KeyError):
            wanted = "true or false" if kind is bool else f"a number ({kind.__name__})"
            raise InputError(f"--set {word}: {name} is {wanted}; change the value.") from None
    return found
