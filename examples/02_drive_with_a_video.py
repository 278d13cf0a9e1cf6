"""Drive an avatar with a video: the film has the driver's sound, and the driver stands on the left.

python examples/02_drive_with_a_video.py me.safetensors driver.mp4
"""

import sys

import ffavatar
from ffavatar.drive.film import FilmStyle

avatar = ffavatar.Avatar.load(sys.argv[1])
ffavatar.make_film(avatar, sys.argv[2], "film.mp4", style=FilmStyle(size=512, side_by_side=True))
print("film.mp4")
