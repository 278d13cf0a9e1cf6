"""Personalization: a feed-forward avatar fitted further to the photos at hand."""

from ffavatar.personal.recipe import PersonalRecipe
from ffavatar.personal.run import OnSnapshot, Personalized, personalize

__all__ = ["OnSnapshot", "PersonalRecipe", "Personalized", "personalize"]
