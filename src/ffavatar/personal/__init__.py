"""Personalization: a feed-forward avatar fitted further to the photos at hand."""

from ffavatar.personal.recipe import PersonalRecipe
from ffavatar.personal.run import Personalized, personalize

__all__ = ["PersonalRecipe", "Personalized", "personalize"]
