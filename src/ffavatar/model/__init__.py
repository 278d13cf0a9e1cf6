"""The networks: ``create_model(preset)`` builds one, ``load_model(preset)`` builds one with weights."""

from ffavatar.model.build import FFAvatar, Reconstruction, create_model, load_model
from ffavatar.model.config import PRESETS, ModelConfig
from ffavatar.model.estimator import Estimate

__all__ = ["PRESETS", "Estimate", "FFAvatar", "ModelConfig", "Reconstruction", "create_model", "load_model"]
