"""The steps of a film one by one, for those who want the pictures and not a file.

python examples/05_frame_by_frame.py me.safetensors driver.mp4
"""

import sys

import ffavatar
from ffavatar.drive.video import FrameReader
from ffavatar.model import load_model
from ffavatar.photo import FrontEnd
from ffavatar.pipeline import animate, drive

avatar = ffavatar.Avatar.load(sys.argv[1])
model, front_end = load_model(), FrontEnd()
landmarks = None
for number, frame in enumerate(FrameReader(sys.argv[2])):
    found = front_end.analyse_frame(frame.image, landmarks, size=256)  # follows the face from frame to frame
    landmarks = found.landmarks
    if found.views is None:
        print(f"{number}: {found.report.reason}")
        continue
    params = drive(model, avatar, found.views)  # pose and expression, one row
    picture = animate(avatar, params, size=512).images[0]  # (512, 512, 3) in [0, 1]
    turn = (params.root + params.neck)[0, 1]
    print(f"{number}: yaw {float(turn):+.2f} rad, mean colour {picture.mean((0, 1)).tolist()}")
