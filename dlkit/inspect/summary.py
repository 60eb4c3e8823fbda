"""What a model is made of: every parameter with its path, shape and size, and what one forward pass costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlkit import tree
from dlkit.inspect.flops import flops
from dlkit.nn.layer import Layer
from dlkit.nn.mode import EVAL

__all__ = ["Row", "Summary", "summary"]

Kind = Literal["trainable", "frozen", "state"]


@dataclass(frozen=True)
class Row:
    """One array: where it stands in the tree, its shape and dtype, and whether the optimizer moves it."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    kind: Kind

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """The bytes of the array."""
        return self.size * np.dtype(jnp.dtype(self.dtype)).itemsize


@dataclass(frozen=True)
class Summary:
    """The rows of a model and its totals; `print` it.

    `flops` is the count of one forward pass in evaluation on `input_shape`, None where it is unknown.
    """

    rows: tuple[Row, ...]
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    flops: int | None

    @property
    def parameters(self) -> int:
        """The number of learned numbers, frozen ones included."""
        return sum(row.size for row in self.rows if row.kind != "state")

    @property
    def trainable(self) -> int:
        """The number of parameters that are not frozen."""
        return sum(row.size for row in self.rows if row.kind == "trainable")

    @property
    def nbytes(self) -> int:
        """The bytes of the parameters."""
        return sum(row.nbytes for row in self.rows if row.kind != "state")

    def totals(self) -> list[tuple[str, str]]:
        """The lines below the table, as (name, value) pairs."""
        lines = [("parameters", f"{self.parameters:,} ({_bytes(self.nbytes)})")]
        if self.trainable != self.parameters:
            lines.append(("trainable", f"{self.trainable:,}, frozen {self.parameters - self.trainable:,}"))
        if state := [row for row in self.rows if row.kind == "state"]:
            held = sum(row.nbytes for row in state)
            lines.append(("state", f"{sum(row.size for row in state):,} ({_bytes(held)}), not learned"))
        if self.input_shape is not None:
            lines.append(("input", _shape(self.input_shape)))
            lines.append(("output", "unknown" if self.output_shape is None else _shape(self.output_shape)))
            lines.append(("FLOPs", f"{_count(self.flops)} per forward pass" if self.flops else "unknown"))
        return lines

    def __str__(self) -> str:
        head = ("path", "shape", "dtype", "parameters", "bytes", "trainable")
        flag = {"trainable": "yes", "frozen": "no", "state": "state"}
        cells = [(r.path, _shape(r.shape), r.dtype, f"{r.size:,}", f"{r.nbytes:,}", flag[r.kind]) for r in self.rows]
        widths = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head))]
        lines = []
        for row in [head, *cells]:
            padded = [
                c.rjust(w) if i in (3, 4) else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(padded).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        lines.append(lines[1])
        lines += [f"{name:<11} {value}" for name, value in self.totals()]
        return "\n".join(lines)


def summary(
    model: Layer[Any, Any],
    input_shape: Sequence[int] | Any = None,
    *,
    dtype: Any = jnp.float32,
    frozen: str | Sequence[str] = (),
) -> Summary:
    """The arrays of a model and the cost of one forward pass, from shapes alone: nothing is allocated or compiled.

    Args:
      model: any layer; its parameters come from `jax.eval_shape(model.init, key)`.
      input_shape: the whole shape of the input, batch included, such as `(1, 28, 28, 1)`, or an input itself, an array
        or a `jax.ShapeDtypeStruct`. Without it the output shape and the FLOPs are not given.
      dtype: the dtype of the input, where a shape is given.
      frozen: globs over paths (see `dlkit.tree`) of the parameters that are not trained.

    >>> from dlkit import nn
    >>> print(summary(nn.Chain(nn.Linear(4, 3), nn.Relu(), nn.Linear(3, 2)), (8, 4)))
    path       shape   dtype    parameters  bytes  trainable
    --------------------------------------------------------
    linear1/b  [3]     float32           3     12  yes
    linear1/w  [4, 3]  float32          12     48  yes
    linear2/b  [2]     float32           2      8  yes
    linear2/w  [3, 2]  float32           6     24  yes
    --------------------------------------------------------
    parameters  23 (92 B)
    input       [8, 4]
    output      [8, 2]
    FLOPs       352 per forward pass

    Raises:
      ValueError: a glob in `frozen` matches no parameter, or the model refuses an input of this shape.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(model.init, key), jax.eval_shape(model.init_state)
    stays = tree.flatten(tree.match(params, frozen))
    rows = [_row(path, leaf, "frozen" if stays[path] else "trainable") for path, leaf in tree.flatten(params).items()]
    rows += [_row(path, leaf, "state") for path, leaf in tree.flatten(state).items()]
    if input_shape is None:
        return Summary(tuple(rows), None, None, None)

    def forward(params: Any, state: Any, x: Any) -> Any:
        return model.apply(params, state, x, EVAL)[0]

    given: Any = input_shape
    like = hasattr(given, "shape") and hasattr(given, "dtype")
    x = jax.ShapeDtypeStruct(*((given.shape, given.dtype) if like else (tuple(given), dtype)))
    out = jax.eval_shape(forward, params, state, x)
    shape = tuple(out.shape) if isinstance(out, jax.ShapeDtypeStruct) else None
    return Summary(tuple(rows), x.shape, shape, flops(forward, params, state, x))


def _row(path: str, leaf: Any, kind: Kind) -> Row:
    return Row(path, tuple(leaf.shape), str(leaf.dtype), kind)


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _bytes(n: float | int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def _count(n: int) -> str:
    short, units = float(n), iter(("", "k", "M", "G", "T", "P"))
    unit = next(units)
    while short >= 1000 and unit != "P":
        short, unit = short / 1000, next(units)
    return f"{n:,} ({short:.2f} {unit})" if unit else f"{n:,}"
