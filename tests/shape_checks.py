"""The type checker behind the shape checks: beartype, for which a whole number is a float as it is for Python."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
