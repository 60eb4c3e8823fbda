"""Time and memory of a compiled function."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

__all__ = ["Cost", "measure"]


@dataclass(frozen=True)
class Cost:
    """Median seconds of a call; bytes of what it holds and returns, None where XLA does not say; the result."""

    seconds: float
    nbytes: int | None
    result: Any


def measure(fn: Callable[..., Any], *args: Any, repeats: int = 5) -> Cost:
    """Compile `fn`, run it once to warm up, then time `repeats` runs to their end. Compilation is not counted."""
    compiled = jax.jit(fn).lower(*args).compile()
    memory = compiled.memory_analysis()
    size = None if memory is None else int(memory.temp_size_in_bytes + memory.output_size_in_bytes)
    result = jax.block_until_ready(compiled(*args))
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        spent.append(time.perf_counter() - start)
    return Cost(float(np.median(spent)), size, result)
