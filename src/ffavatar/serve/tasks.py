"""What a job asks for, without the queue around it: can it be done, what is a worker told, what is said at its end."""

from __future__ import annotations

from ffavatar.serve.messages import Task
from ffavatar.serve.problems import Problem, unknown
from ffavatar.serve.records import DriveRequest, JobRequest, PersonalizeRequest, ReconstructRequest
from ffavatar.serve.settings import Limits, Settings
from ffavatar.serve.store import FILM_FILE, JobEntry, Store

BASE_FILE = "base.safetensors"  # in a job's folder: the avatar it works on
FILM_SIZES = (64, 1024)  # px, the side of a driven film: least and most


def check_request(request: JobRequest, store: Store, limits: Limits) -> None:
    """Whether what a request speaks of is there and can be used. Raises ``Problem`` 404 or 422 where not."""
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
    if isinstance(request, DriveRequest):
        if store.film(request.film) is None:
            raise unknown("film", request.film)
        low, high = FILM_SIZES
        if not low <= request.size <= high or request.size % 2:
            raise Problem(
                422, f"size: {request.size} pixels are not possible; give an even number from {low} to {high}."
            )


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
    if None in photos or ("film" in request and film is None):
        raise Problem(404, "Its photos or film have been deleted meanwhile; upload them again.")
    return Task(
        job=entry.id,
        kind=entry.kind,
        folder=str(folder),
        photos=tuple(str(place) for place in photos),
        container=str(base) if again else "",
        personalize=bool(request.get("personalize")),
        steps=settings.personal_steps,
        film=str(film / FILM_FILE) if film is not None else "",
        relative=bool(request.get("relative")),
        same_person=bool(request.get("same_person")),
        size=int(request.get("size", 512)),
        most_seconds=settings.limits.film_seconds,
        format=str(request.get("format", "")),
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
