"""A still in a chosen pose and expression, on transparent ground, with the synthetic-media marks.

python examples/03_pose_by_hand.py me.safetensors
"""

import sys

import ffavatar
from ffavatar.drive.film import FilmStyle, render_uint8
from ffavatar.drive.marks import save_still
from ffavatar.drive.pose import posed

avatar = ffavatar.Avatar.load(sys.argv[1])
params = posed(avatar, turn_deg=(25, 5, 0), expressions={"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "jawOpen": 0.2})
save_still("smile.png", render_uint8(avatar, params, FilmStyle(alpha=True), size=768)[0])
print("smile.png")
