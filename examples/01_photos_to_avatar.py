"""Photos to an avatar file.

python examples/01_photos_to_avatar.py front.jpg side.jpg
"""

import sys

import ffavatar

avatar = ffavatar.reconstruct([*sys.argv[1:]])
avatar.save("me.safetensors")
print(f"me.safetensors: {len(avatar):,} Gaussians")
