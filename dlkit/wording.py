"""Numbers for people: the one way in which commands, progress and pictures write shares and counts."""

import re
from typing import Any

__all__ = ["counted", "is_share", "number", "percent"]

_SHARES = re.compile(r"(^|[_/])(accuracy|top\d*|precision|recall|f1)($|[_/])")


def is_share(name: str) -> bool:
    """Whether a metric of this name is a share of the examples, to be written in percent.

    >>> is_share("valid/top5_accuracy"), is_share("auc"), is_share("valid/loss")
    (True, False, False)
    """
    return bool(_SHARES.search(name))


def percent(share: float, digits: int = 2) -> str:
    """A share in percent, with a space, as SI writes it.

    >>> percent(0.971)
    '97.10 %'
    """
    return f"{100 * share:.{digits}f} %"


def number(name: str, value: Any) -> str:
    """The value of a metric: a share in percent, another number with four digits, an array as it prints."""
    if not isinstance(value, int | float):
        return str(value)
    return percent(value) if is_share(name) else f"{value:.4g}"


def counted(n: int, one: str) -> str:
    """How many of what.

    >>> counted(1, "update"), counted(2000, "update")
    ('1 update', '2,000 updates')
    """
    return f"{n:,} {one}{'' if n == 1 else 's'}"
