"""What is wrong with a configuration, said in one message: where it stands, what was given, what would be right."""

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "choice", "nearest"]


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the file, the key and the fix."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the closest known one, or all of them where none is close."""
    known = list(known)
    # Letters that changed places: `adma` is `adam`, and not `adamax`.
    close = [k for k in known if len(k) == len(word) and sorted(k) == sorted(word)]
    close = close or difflib.get_close_matches(word[:100], known, n=1, cutoff=0.55)
    # An abbreviation is far from the word it stands for: `lr` is `learning_rate`.
    close = close or [k for k in known if len(word) > 1 and "".join(part[0] for part in k.split("_") if part) == word]
    # Part of a longer name: `hinge` is `multiclass_hinge`.
    close = close or [k for k in known if len(word) > 2 and word in k]
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(known)}" if known else "none is known"


def choice(known: Iterable[str], given: str, word: str) -> str:
    """What the known words are and what was given instead, with a hint where one is close."""
    known = list(known)
    hint = nearest(word, known)
    wanted = f"expected one of {', '.join(known)}"
    return f"got {given}; {hint} ({wanted})" if hint.startswith("did") else f"{wanted}, got {given}"
