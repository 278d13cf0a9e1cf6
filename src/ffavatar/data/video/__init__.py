"""Monocular films to people: shots, face tracks, quality gates, identities over all films, frames that differ."""
