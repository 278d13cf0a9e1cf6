"""What a job asks for, without the queue around it: can it be done, what is a worker told, what is said at its end."""

from __future__ import annotations

from typing import Any

from ffavatar.serve.messages import Task
from ffavatar.serve.ordering import check_drive, check_export, check_ranges, file_name
from ffavatar.serve.problems import Problem, unknown
from ffavatar.serve.records import (
    DriveRequest,
    ExportRequest,
    JobRequest,
    PersonalizeRequest,
    ReconstructRequest,
    shown_name,
)
from ffavatar.serve.settings import Limits, Settings
from ffavatar.serve.store import FILM_FILE, JobEntry, Store

BASE_FILE = "base.safetensors"  # in a job's folder: the avatar it works on


def check_request(request: JobRequest, store: Store, limits: Limits) -> None:
    """Whether what a request speaks of is there and can be used. Raises ``Problem`` 404 or 422 where not."""
    check_ranges(request)
    if not isinstance(request, ReconstructRequest) and request.avatar not in store.avatars:
        raise unknown("avatar", request.avatar)
    if isinstance(request, ReconstructRequest | PersonalizeRequest):
        most = limits.photos
        if not 1 <= len(request.photos) <= most or len(set(request.photos)) != len(request.photos):
            raise Problem(422, f"photos: a job takes 1 to {most} photos, each once; change the list.")
        for name in request.photos:
            found = store.photo(name)
            if found is None:
                raise unknown("photo", name)
            if not found.photo.kept:
                raise Problem(422, f"{found.photo.reason or found.photo.name} Leave this photo out.")
    if isinstance(request, ReconstructRequest) and request.name is not None:
        checked_name(request.name)
    if isinstance(request, ReconstructRequest) and request.look is not None and request.look not in request.photos:
        raise Problem(422, "look: it is none of the job's photos; give the id of one of them, or leave it away.")
    if isinstance(request, DriveRequest):
        if store.film(request.film) is None:
            raise unknown("film", request.film)
        check_drive(request)
    if isinstance(request, ExportRequest):
        check_export(request)
        if request.motion is not None and store.motion_path(request.motion) is None:
            raise unknown("motion", request.motion)


def checked_name(text: str) -> str:
    """A name as it is shown. Raises ``Problem`` 422 where nothing of it can be seen."""
    if not (shown := shown_name(text)):
        raise Problem(422, "name: it is empty; give the avatar a name that can be seen.")
    return shown


def same_request(kept: dict[str, Any], request: JobRequest) -> bool:
    """Whether a job's record asks for the same; what an older version wrote lacks options that came later."""
    try:
        return kept.get("kind") == request.kind and type(request)(**kept) == request
    except TypeError:  # of a newer version
        return False


def task_of(entry: JobEntry, store: Store, settings: Settings) -> Task:
    """What to tell a worker. Raises ``Problem`` 404 where something is gone that the job needs."""
    request = entry.request
    folder = store.job_folder(entry.id)
    base = folder / BASE_FILE
    if entry.kind == "reconstruct":
        again = base.is_file() and entry.avatar in store.avatars
    else:
        again = base.is_file() or store.borrow(entry.avatar, base)
        if not again:
            raise unknown("avatar", entry.avatar)
    photos = [store.place("photos", name) for name in request.get("photos", ())]
    film = store.place("films", request.get("film", ""))
    motion = store.motion_path(request["motion"]) if request.get("motion") else None
    if None in photos or ("film" in request and film is None) or (request.get("motion") and motion is None):
        raise Problem(404, "Its photos, film or motion have been deleted meanwhile; upload them again.")
    return Task(
        job=entry.id,
        kind=entry.kind,
        folder=str(folder),
        photos=tuple(str(place) for place in photos),
        container=str(base) if again else "",
        look=request["photos"].index(request["look"]) if request.get("look") else None,
        personalize=bool(request.get("personalize")),
        steps=settings.personal_steps,
        film=str(film / FILM_FILE) if film is not None else "",
        relative=bool(request.get("relative")),
        same_person=bool(request.get("same_person")),
        size=int(request.get("size") or 512),
        most_seconds=settings.limits.film_seconds,
        name=file_name(request) if entry.kind == "export" else "",
        turn_deg=(request.get("yaw", 0.0), request.get("pitch", 0.0), request.get("roll", 0.0)),
        expression=dict(request.get("expression", {})),
        motion=str(motion) if motion is not None else "",
        frame=request.get("frame"),
        scale=float(request.get("scale", 1.0)),
        background=str(request.get("background", "white")),
        allow_flame=bool(request.get("allow_flame")),
    )


def note_refinement(entry: JobEntry, store: Store) -> None:
    """Say in the avatar's record whether the refinement that ends here came to its end, and in the job's too."""
    refines = entry.kind == "personalize" or bool(entry.request.get("personalize"))
    avatar = store.avatars.get(entry.avatar)
    if not refines or avatar is None or not entry.attempts:
        return
    note = None
    if entry.state != "done":
        how = "was stopped" if entry.state == "cancelled" else "failed"
        kept = "what it had reached is kept" if avatar.personalized else "the avatar is as it was before"
        note = f"Its refinement {how} before the end; {kept}."
    elif not avatar.personalized:
        note = "Its refinement did not help on a photo held out as a check; the avatar is as it was before."
    if note is not None:
        entry.notes = [*entry.notes, note]
    store.note_avatar(entry.avatar, note)
