"""Calibrated multi-camera captures of others, as they are downloaded, to samples with known cameras in head space."""
