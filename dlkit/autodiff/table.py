"""Tables of text: printed with aligned columns, shown as HTML in notebooks."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Named columns of text; `print` it, or let a notebook show it.

    >>> print(Table(("x", "sin(x)"), (("0", "0"), ("1", "0.841471"))))
    x  sin(x)
    -----------
    0  0
    1  0.841471
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""

    def column(self, name: str) -> tuple[str, ...]:
        """The cells of one column.

        Raises:
          KeyError: there is no such column.
        """
        if name not in self.columns:
            raise KeyError(f"no column {name!r}; the columns are {', '.join(self.columns)}")
        return tuple(row[self.columns.index(name)] for row in self.rows)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        cells = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([*([self.title] if self.title else []), *lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            style = "text-align:left;font-family:monospace;padding:2px 10px"
            return "<tr>" + "".join(f'<{tag} style="{style}">{html.escape(c)}</{tag}>' for c in cells) + "</tr>"

        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table>{title}{row(self.columns, 'th')}{''.join(row(r, 'td') for r in self.rows)}</table>{note}"


def number(value: Any, digits: int = 6) -> str:
    """A scalar with `digits` significant digits; an integer as it is."""
    array = np.asarray(value)
    if array.dtype == bool or np.issubdtype(array.dtype, np.integer):
        return str(array.item())
    return f"{array.item():.{digits}g}"


def brief(value: Any, digits: int = 6, most: int = 6) -> str:
    """A value in a few characters: the numbers where they are at most `most`, else the shape and the norm."""
    if value is None:
        return ""
    if jnp.issubdtype(getattr(value, "dtype", np.float32), jax.dtypes.prng_key):
        return f"key{list(value.shape)}" if value.shape else "key"
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.ndim == 0:
        return number(array, digits)
    if array.ndim == 1 and array.size <= most:
        return "[" + ", ".join(number(x, min(digits, 4)) for x in array) + "]"
    norm = np.linalg.norm(array.astype(np.complex128 if np.iscomplexobj(array) else np.float64))
    return f"{list(array.shape)} norm {norm:.4g}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Table:
    """A `Table` from sequences."""
    return Table(tuple(columns), tuple(tuple(row) for row in rows), title, note)


def nbytes(count: float | int) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def seconds(time: float) -> str:
    """A duration with a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if time * scale >= 1 or unit == "us":
            return f"{time * scale:.3g} {unit}"
    raise AssertionError
