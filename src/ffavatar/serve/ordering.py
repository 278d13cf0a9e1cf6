"""What an export may be asked for: refused in one sentence before a job is made, not after it has waited its turn."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin, get_type_hints

from ffavatar.drive.background import parse_background
from ffavatar.errors import InputError
from ffavatar.export.rules import why_not
from ffavatar.serve.problems import Problem
from ffavatar.serve.records import Between, DriveRequest, ExportFormat, ExportRequest, JobRequest

MOMENTS: tuple[ExportFormat, ...] = ("ply", "spz", "splat", "obj", "usda", "png", "jpg")
WHOLE: tuple[ExportFormat, ...] = ("html", "zip")
FILMS: tuple[ExportFormat, ...] = ("mp4", "mov", "webm", "gif")
CLEAR: tuple[ExportFormat, ...] = ("png", "webp", "mov", "webm", "gif", "html")  # hold transparency
FILM_SIDE = 1024  # px, at most: a film has thousands of frames
_MOST_EXPRESSIONS = 200
_POSE = "yaw, pitch, roll and expression"


def check_ranges(request: JobRequest) -> None:
    """Whether the numbers of a request are within what its fields' annotations say. Raises ``Problem`` 422."""
    for name, hint in get_type_hints(type(request), include_extras=True).items():
        value = getattr(request, name)
        for bounds in _bounds(hint):
            rows = value.items() if isinstance(value, dict) else ((None, value),)
            for key, number in rows:
                # written so that what is no number (JSON's NaN) is refused too
                if number is not None and not bounds.least <= number <= bounds.most:
                    where = name if key is None else f"{name} {key[:64]!r}"
                    between = f"{bounds.least:g} to {bounds.most:g}"
                    raise Problem(422, f"{where}: {number:g} is out of range; give a number from {between}.")


def _bounds(hint: Any) -> list[Between]:
    """All ``Between`` within an annotation, such as that of a dictionary's values."""
    if get_origin(hint) is Annotated:
        return [extra for extra in hint.__metadata__ if isinstance(extra, Between)]
    return [bounds for part in get_args(hint) for bounds in _bounds(part)]


def check_export(request: ExportRequest) -> None:
    """Whether the options fit the format and each other. Raises ``Problem`` 422."""
    kind = request.format
    pose = bool(request.yaw or request.pitch or request.roll or request.expression)
    if len(request.expression) > _MOST_EXPRESSIONS:
        raise Problem(422, f"expression: no head has more than {_MOST_EXPRESSIONS}; give those that are not zero.")
    if pose and request.motion is not None:
        raise Problem(422, f"motion: give a pose ({_POSE}) or a motion, not both.")
    if request.frame is not None and request.motion is None:
        raise Problem(422, "frame: it is counted in a motion; give that too.")
    if kind in MOMENTS and request.motion is not None and request.frame is None:
        raise Problem(422, f"frame: {kind} holds one moment of the motion; say which.")
    if kind in WHOLE and (pose or request.frame is not None):
        raise Problem(422, f"format: {kind} holds the whole avatar, not a pose; leave {_POSE} and frame away.")
    if kind in FILMS and (pose or request.frame is not None):
        raise Problem(422, f"format: {kind} holds a whole motion; leave {_POSE} and frame away, or take png.")
    if kind in FILMS and request.motion is None:
        raise Problem(422, f"motion: {kind} is a film, which needs one; upload it, or drive the avatar with a film.")
    if request.scale != 1 and (why := why_not(kind, "scale")):
        raise Problem(422, f"scale: {why}")
    _check_look(request, kind)


def _check_look(request: ExportRequest, kind: ExportFormat) -> None:
    size, background = request.size, request.background.lower()
    if size is not None and (why := why_not(kind, "size")):
        raise Problem(422, f"size: {why}")
    moves = kind in FILMS or (kind == "webp" and request.motion is not None and request.frame is None)
    if size is not None and moves and size > FILM_SIDE:
        raise Problem(422, f"size: films have at most {FILM_SIDE} pixels a side; give less.")
    try:
        _, clear = parse_background(background)
    except InputError as error:
        raise Problem(422, f"background: {error}") from None
    if background != "white" and (why := why_not(kind, "background")):
        raise Problem(422, f"background: {why}")
    if clear and kind not in CLEAR:
        raise Problem(422, f"background: {kind} cannot hold transparency; take {', '.join(CLEAR)} or a colour.")


def check_drive(request: DriveRequest) -> None:
    """Raises ``Problem`` 422 for a size that films cannot have."""
    if request.size % 2:
        raise Problem(422, f"size: {request.size} pixels are not possible; give an even number.")


def file_name(request: dict[str, Any]) -> str:
    """What the file of an export is called: another name than the resting avatar's where options change it.

    So the newest file of a name is the newest of the same kind.
    """
    plain = ExportRequest(kind="export", avatar=request["avatar"], format=request["format"])
    same = ExportRequest(**request) == plain
    return f"{'avatar' if same else 'custom'}.{plain.format}"
