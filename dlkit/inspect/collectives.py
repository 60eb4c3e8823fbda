"""What devices say to each other in a compiled program: its collectives, counted, with their bytes."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

__all__ = ["Collective", "collectives"]

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # others carry their bits in their names: f32, s8, f8e4m3fn
INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """How often a kind of collective stands in a program, and the bytes of its results on one device."""

    count: int
    bytes: int


def collectives(fn: Callable[..., Any], *args: Any) -> dict[str, Collective]:
    """The collectives that XLA put into `fn` compiled for `args`, by kind, the kinds in alphabetical order.

    Kinds are `all-gather`, `all-reduce`, `all-to-all`, `collective-permute`, `reduce-scatter`; one that is not there is
    left out. XLA may join several into one of a tuple, and does so differently on CPU, GPU and TPU: bytes compare
    better than counts. They are those of what each device holds *after* the collective. One inside a loop counts once,
    however often the loop runs.

    Args:
      fn: jitted or not; nothing is run.
      args: arrays that lie on devices as they will, or `jax.ShapeDtypeStruct`s with a sharding.

    >>> import jax.numpy as jnp
    >>> collectives(jnp.dot, jnp.ones((2, 2)), jnp.ones((2, 2)))      # one device has nobody to talk to
    {}
    """
    jitted: Any = fn if hasattr(fn, "lower") else jax.jit(fn)
    return _count(jitted.lower(*args).compile().as_text())


def _count(program: str) -> dict[str, Collective]:
    found: dict[str, Collective] = {}
    for line in program.splitlines():
        if (match := INSTRUCTION.search(line)) is None:
            continue
        shapes, kind, started = match.groups()
        arrays = ARRAY.findall(shapes)
        if started and kind != "all-reduce":  # it holds its operands too, in front of the results, and counters behind
            arrays = [array for array in arrays if array != ("u32", "")]
            arrays = arrays[len(arrays) // 2 :]
        size = sum(_bytes(dtype, dims) for dtype, dims in arrays)
        old = found.get(kind, Collective(0, 0))
        found[kind] = Collective(old.count + 1, old.bytes + size)
    return dict(sorted(found.items()))


def _bytes(dtype: str, dims: str) -> int:
    digits = re.search(r"\d+", dtype)
    bits = BITS.get(dtype, int(digits.group()) if digits else 0)
    return math.prod(int(d) for d in dims.split(",") if d) * bits // 8
