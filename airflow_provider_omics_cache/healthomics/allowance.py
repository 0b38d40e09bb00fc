"""How many failures an author allows: a number, or a share of all runs."""

from __future__ import annotations

import re
from fractions import Fraction

RULE = 'must be a whole number of runs from 0, or a share from "0%" to "100%"'

_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*", re.ASCII)


def parse(value: object) -> int | Fraction:
    """Read an allowance: an int stays a number of runs, a string such as ``"5%"`` becomes a share of one.

    :raises ValueError: when it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (share := _SHARE.fullmatch(value)):
        fraction = Fraction(share[1]) / 100
        if fraction <= 1:
            return fraction
    raise ValueError(RULE)


def allowed(allowance: int | Fraction, total: int) -> int:
    """Tell how many of ``total`` runs may fail."""
    return allowance if isinstance(allowance, int) else int(allowance * total)
