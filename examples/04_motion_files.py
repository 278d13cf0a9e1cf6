"""Motions are plain records: make one, slow it down, keep it, play it with any avatar.

python examples/04_motion_files.py me.safetensors
"""

import sys
from dataclasses import replace

import ffavatar
from ffavatar.drive.motion import Motion, demo_motion

avatar = ffavatar.Avatar.load(sys.argv[1])
motion = demo_motion(avatar.rig.head, seconds=2.0, fps=20.0)
slow = replace(motion, fps=10.0).resample(20.0)  # half the speed, interpolated
slow.save("slow.json")
print(f"slow.json: {len(slow)} frames, {Motion.load('slow.json').seconds:.1f} s")
ffavatar.make_film(avatar, "slow.json", "slow.mp4")
print("slow.mp4")
