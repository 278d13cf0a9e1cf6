"""Synthetic people: pictures of sampled heads with exact labels. See docs/synthetic.md."""

from ffavatar.data.synthetic.artwork import Artwork
from ffavatar.data.synthetic.bench import write_bench
from ffavatar.data.synthetic.generate import SyntheticPerson, synthetic_person
from ffavatar.data.synthetic.people import Person, Shot
from ffavatar.data.synthetic.store import PeoplePlan, SyntheticPeople, annotate, write_people

__all__ = [
    "Artwork",
    "PeoplePlan",
    "Person",
    "Shot",
    "SyntheticPeople",
    "SyntheticPerson",
    "annotate",
    "synthetic_person",
    "write_bench",
    "write_people",
]
