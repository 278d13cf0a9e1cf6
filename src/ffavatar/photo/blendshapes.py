"""The landmarker's blendshape network: an MLP-Mixer from 146 landmarks to 52 ARKit scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.photo.records import BLENDSHAPES
from ffavatar.weights import load_weights

# Order of the network's outputs and of the landmarks it reads: MediaPipe v1.0.0,
# mediapipe/tasks/cc/vision/face_landmarker/face_blendshapes_graph.cc (Apache-2.0).
BLENDSHAPE_NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
BLENDSHAPE_LANDMARKS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251,
    263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318,
    321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip
NORM_EPSILON = 1.0132789611816406e-06  # as stored in the original: 1e-6 rounded to float16


class BlendshapeMixer(nn.Module):
    """Four mixer blocks over 97 tokens of 64 channels; the first token is read out. Frozen float32 buffers."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in load_weights(BLENDSHAPES).items():
            self.register_buffer(name.replace(".", "_"), value.float(), persistent=False)
        self.register_buffer("subset", torch.tensor(BLENDSHAPE_LANDMARKS), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """(B, 478, >= 2) landmarks in any unit, origin and size; head upright -> (B, 52) scores in [0, 1]."""
        points = points[:, self.get_buffer("subset"), :2]
        centred = points - points.mean(1, keepdim=True)
        size = centred.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt().mean(1, keepdim=True)
        tokens = self._linear("points_to_tokens", (centred / size * 0.5).transpose(1, 2)).transpose(1, 2)
        channels = self._linear("coordinates_to_channels", tokens)
        extra = self.get_buffer("extra_token").expand(channels.shape[0], 1, -1)
        x = torch.cat([extra, channels], 1)
        for index in range(4):
            block = f"blocks_{index}"
            mixed = F.relu(self._linear(f"{block}_token_up", self._norm(f"{block}_token_norm", x).transpose(1, 2)))
            x = x + self._linear(f"{block}_token_down", mixed).transpose(1, 2)
            hidden = F.relu(self._linear(f"{block}_channel_up", self._norm(f"{block}_channel_norm", x)))
            x = x + self._linear(f"{block}_channel_down", hidden)
        return torch.sigmoid(self._linear("head", x[:, 0]))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias"))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        scale = self.get_buffer(name)
        return F.layer_norm(x, scale.shape, scale, None, NORM_EPSILON)
