"""Avatars from folders of photos, to look at; and a third synchronised view predicted from two, with scores.

    python benchmarks/photos.py turntable --photos FOLDER --out FOLDER      one sheet per subfolder
    python benchmarks/photos.py third-view --views FOLDER --out FOLDER      subfolders hold the same file names

``turntable``: sources and eight views around the avatar. ``third-view``: the avatar is made from two of the three
subfolders' pictures of one moment and driven by the third; nothing is tracked. The output shows the people of the
photos: keep it where the photos' licence allows.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Side
from ffavatar.evaluate.machine import environment
from ffavatar.evaluate.methods import Task, avatar_methods, baseline_methods
from ffavatar.evaluate.protocol import ClipResult
from ffavatar.evaluate.report import to_markdown, write_report
from ffavatar.evaluate.rules import Rules
from ffavatar.evaluate.scorer import load_scorer
from ffavatar.evaluate.sheet import contact_sheet
from ffavatar.model import FFAvatar, create_model, load_model
from ffavatar.photo import load_views
from ffavatar.pipeline import animate, drive, reconstruct
from ffavatar.types import HeadParams, Views

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
TURNS = 8


def pictures_in(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not files:
        raise InputError(f"{folder} holds no pictures ({', '.join(PICTURES)}); give a folder of photos.")
    return files


def subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir() or not (found := sorted(path for path in folder.iterdir() if path.is_dir())):
        raise InputError(f"{folder} has no subfolders; give a folder with one subfolder per person or camera.")
    return found


def turned(params: HeadParams, arc_deg: float) -> HeadParams:
    """One frame's place and size, head level and at rest, at ``TURNS`` angles around the vertical axis."""
    full = arc_deg >= 360
    steps = torch.linspace(-arc_deg / 2, arc_deg / 2, TURNS + full)[:TURNS]
    still = HeadParams.neutral(TURNS, params.expression.shape[1], params.expression.device)
    root = still.root.clone()
    root[:, 1] = steps * math.pi / 180
    return replace(still, root=root, translation=params.translation[:1].expand(TURNS, -1).clone())


def turntable(options: argparse.Namespace, model: FFAvatar) -> None:
    for folder in subfolders(options.photos):
        try:
            source, reports = load_views(pictures_in(folder), size=options.size)
        except InputError as error:  # one folder without a usable photo says so and leaves the others their turn
            print(f"{folder.name}: {error}", file=sys.stderr)
            continue
        for report in reports:
            print(f"{folder.name}: {report}")
        avatar = reconstruct(model, source, options.level)
        params = drive(model, avatar, source)
        again = animate(avatar, params, size=options.size).images
        around = animate(avatar, turned(params, options.arc), size=options.size).images
        rows = [("sources", source.on_white()), ("rendered", again.clamp(0, 1)), ("turntable", around.clamp(0, 1))]
        contact_sheet(options.out / f"{folder.name}.png", rows, f"{folder.name}, {len(source)} source views")


def third_view(options: argparse.Namespace, model: FFAvatar) -> None:
    cameras = subfolders(options.views)
    if len(cameras) != 3:
        raise InputError(f"{options.views} has {len(cameras)} subfolders; third-view needs three cameras.")
    names = sorted(set.intersection(*({path.name for path in pictures_in(camera)} for camera in cameras)))
    moments = names[:: options.every]
    methods = [*baseline_methods(), *(m for m in avatar_methods(model, "", options.level) if m.name == "driven")]
    what = "Novel view: avatar from the pictures of two synchronised cameras, the third one's shown."
    rules = Rules("third-view", 1, "self", what, options.size, (2,), tuple(m.name for m in methods), 0, 0)
    scorer, results, pages = load_scorer("core", ruler=False), [], []
    for camera in cameras:
        for moment in moments:
            places = [other / moment for other in cameras if other != camera]
            source, refused = _kept(places, options.size)
            target, also_refused = _kept([camera / moment], options.size)
            if source is None or target is None:
                print(f"{camera.name} {moment}: left out ({'; '.join(refused + also_refused)})", file=sys.stderr)
                continue
            label = f"{camera.name} {moment}"
            row = [*source.on_white(), *target.on_white()]
            for method in methods:
                start = time.perf_counter()
                side = Side(target, (0,), torch.zeros(1, 3))
                prediction = method.run(Task(label, 2, source, side, (0, 0)))
                seconds = time.perf_counter() - start
                scores = scorer.score(prediction, source, target)
                timing = prediction.timing | {"seconds": seconds}
                results.append(
                    ClipResult(
                        label, "one", method.name, 2, options.size, "third-view 1", scores, timing, tuple(refused), ""
                    )
                )
                row.append(prediction.images[0])
            if len(source) == 2:
                pages.append((label.replace(" ", "\n"), torch.stack(row)))
    if not results:
        raise InputError(f"No moment of {options.views} has a usable picture from each side; look at the photos.")
    about = environment() | {"sources": "two cameras", "target": "the third", "weights": _weights_name(options)}
    write_report(results, options.out, "third-view", rules, about)
    titles = ", ".join(["two sources", "target", *(method.name for method in methods)])
    contact_sheet(options.out / "third-view.png", pages, titles)
    print(to_markdown(results, rules, about))


def _kept(paths: list[Path], size: int) -> tuple[Views | None, list[str]]:
    """The usable views among photos, None if there is none, and the sentences about the others."""
    try:
        views, reports = load_views(paths, size=size)
    except InputError as error:
        return None, [str(error)]
    return views, [report.reason for report in reports if not report.kept]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("turntable", help="a sheet per folder of photos")
    table.add_argument("--photos", type=Path, required=True, help="folder with one subfolder of photos per person")
    table.add_argument("--arc", type=float, default=150, help="degrees that the eight views span; 360 goes all around")
    third = commands.add_parser("third-view", help="predict one of three synchronised views from the others")
    third.add_argument("--views", type=Path, required=True, help="folder with one subfolder of pictures per camera")
    third.add_argument("--every", type=int, default=6, help="take every so many moments")
    for command in (table, third):
        command.add_argument("--out", type=Path, required=True, help="folder for sheets and tables")
        command.add_argument("--size", type=int, default=512, help="side of the pictures in pixels")
        command.add_argument("--preset", default="lite")
        command.add_argument("--weights", type=Path, help="safetensors file (default: the preset's shipped weights)")
        command.add_argument("--untrained", action="store_true", help="the preset without any weights")
        command.add_argument("--level", type=int, help="subdivisions of the head (default: the preset's)")
        command.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    options = parser.parse_args(arguments)
    if options.weights and options.untrained:
        parser.error("--weights and --untrained exclude each other")
    return options


def _weights_name(options: argparse.Namespace) -> str:
    return options.weights.name if options.weights else "untrained" if options.untrained else "shipped"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        preset, weights = options.preset, options.weights
        model = create_model(preset).eval() if options.untrained else load_model(preset, weights)
        {"turntable": turntable, "third-view": third_view}[options.command](options, model)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
