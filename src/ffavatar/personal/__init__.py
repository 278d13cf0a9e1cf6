"""Personalization: a feed-forward avatar fitted further to the photos at hand."""

from ffavatar.personal.recipe import PersonalRecipe, Start
from ffavatar.personal.run import OnSnapshot, Personalized, personalize

__all__ = ["OnSnapshot", "PersonalRecipe", "Personalized", "Start", "personalize"]
