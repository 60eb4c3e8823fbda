"""Random orders that are the same on every machine, whatever the version of numpy.

`Generator.permutation` may change between versions of numpy; the raw output of a bit generator may not. So an order is
made from the counter-based Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): one
64-bit word is drawn for each position, the position replaces the word's lowest bits, and the words are sorted. No two
words are equal, so every correct sorting algorithm gives the same result.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# What the numbers are for: the same seed then gives unrelated orders to a split and to a loader.
SHUFFLE, SPLIT = 1, 2


def seed_of(seed: Any) -> int:
    """A seed in [0, 2^64) from such an integer or from a key of `jax.random`; `jax.random.key(7)` is 7.

    Raises:
        TypeError: it is neither. ValueError: the integer is out of range.
    """
    if isinstance(seed, jax.Array | np.ndarray):
        typed = jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
        words = np.asarray(jax.random.key_data(seed) if typed else seed)
        if words.dtype == np.uint32 and words.ndim == 1 and words.size:
            if words.size == 2:
                return int(words[0]) << 32 | int(words[1])
            return int.from_bytes(hashlib.sha256(words.astype("<u4").tobytes()).digest()[:8], "little")
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed {seed} is out of range: it must be in [0, 2^64)")
        return int(seed)
    raise TypeError(f"seed must be an integer in [0, 2^64) or one jax.random key, got {type(seed).__name__} {seed!r}")


def permutation(n: int, seed: int, stream: int, purpose: int) -> np.ndarray:
    """A permutation of 0 .. n - 1 (`[n]`, intp), a pure function of its arguments.

    >>> permutation(6, seed=0, stream=0, purpose=SHUFFLE).tolist()
    [4, 2, 5, 0, 1, 3]
    """
    # The Philox key is (seed, stream), so neighbouring seeds and epochs are as unrelated as distant ones.
    counter = np.array([0, 0, 0, purpose], np.uint64)
    words = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=counter).random_raw(n)
    low = np.uint64((1 << max(n - 1, 1).bit_length()) - 1)
    words = (words & ~low) | np.arange(n, dtype=np.uint64)
    words.sort()
    return (words & low).astype(np.intp)
