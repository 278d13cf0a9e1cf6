"""Avatars in other people's formats."""
