"""Definitions that hold functions, and print them by their names."""

import dataclasses
from typing import Any

__all__ = ["Shown", "check_callable"]


class Shown:
    """A `__repr__` for dataclasses (with `repr=False`): a function prints as its name, not as its address."""

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        values = [(f.name, getattr(self, f.name)) for f in fields if f.init]
        return f"{type(self).__name__}({', '.join(f'{name}={show(value)}' for name, value in values)})"


def show(value: Any) -> str:
    """`repr`, with functions by their names, inside of tuples too."""
    if type(value) is tuple:
        inside = ", ".join(map(show, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return getattr(value, "__qualname__", None) or repr(value)


def check_callable(owner: str, name: str, value: Any) -> None:
    """Raise TypeError where a function belongs and something else was given."""
    if not callable(value):
        raise TypeError(f"{owner}: {name} is {value!r}, wanted a function")
