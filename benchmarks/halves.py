"""An index of clips whose first half is the input and whose second half is held out, from any index of clips.

    python benchmarks/halves.py FOLDER halves.json [--sources 16] [--targets 8] [--clips ID ID]
    ffavatar evaluate halves.json --views 16 --size 256 --methods driven,personalized,personalized_tracked -o OUT

Sources are spread evenly over the first half, targets over the second, as ``ffavatar personalize --video`` would see
the one and never the other.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from ffavatar.drive.video import FrameReader
from ffavatar.evaluate.clips import read_index


def halves(frames: int, sources: int, targets: int) -> tuple[list[int], list[int]]:
    """Numbers of source frames in the first half and of target frames in the second, each from end to end."""
    middle = frames // 2
    first = np.unique(np.linspace(0, middle - 1, min(sources, middle)).round().astype(int))
    second = np.unique(np.linspace(middle, frames - 1, min(targets, frames - middle)).round().astype(int))
    return first.tolist(), second.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="folder with index.json, or an index file")
    parser.add_argument("output", type=Path, help="index file to write (.json)")
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--clips", nargs="+", default=[], help="ids of clips (default: all)")
    options = parser.parse_args()
    rows = []
    for clip in read_index(options.index):
        if options.clips and clip.id not in options.clips:
            continue
        count = sum(1 for _ in FrameReader(clip.file))
        sources, targets = halves(count, options.sources, options.targets)
        file = os.path.relpath(clip.file.resolve(), options.output.resolve().parent)
        rows.append(
            {
                "id": clip.id,
                "file": file,
                "source_frames": sources,
                "target_frames": targets,
                "person": clip.person,
            }
        )
    options.output.write_text(json.dumps({"clips": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"{options.output}: {len(rows)} clips, at most {options.sources} sources and {options.targets} targets each")


if __name__ == "__main__":
    main()
