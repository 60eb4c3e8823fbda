"""What is wrong with a configuration, said in one message: where it stands, what was given, what would be right."""

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "nearest"]


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the file, the key and the fix."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the closest known one, or all of them where none is close."""
    known = list(known)
    close = difflib.get_close_matches(word[:100], known, n=1, cutoff=0.55)
    # An abbreviation is far from the word it stands for: `lr` is `learning_rate`.
    close = close or [k for k in known if len(word) > 1 and "".join(part[0] for part in k.split("_") if part) == word]
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(known)}" if known else "none is known"
