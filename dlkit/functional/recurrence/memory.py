"""Reading and writing a memory by soft addresses: the parts of a Neural Turing Machine.

A memory is `N` slots of `M` numbers, `[..., N, M]`. An address is a distribution over the slots, `[..., H, N]` for `H`
heads: not negative, of sum 1. A head comes to its address in four steps,

    w_c = content_address(memory, key, strength)      slots that look like the key
    w_g = interpolate_address(w_c, w_before, gate)    or those of the step before
    w_s = shift_address(w_g, shift)                   moved along
    w   = sharpen_address(w_s, power)                 and made sharp again

each of which keeps addresses addresses. Addresses are computed in float32 or wider.

Reference: Graves, Wayne and Danihelka, Neural Turing machines, 2014, arXiv:1410.5401.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.functional.precision import wide_dtype

__all__ = [
    "content_address",
    "interpolate_address",
    "read_memory",
    "sharpen_address",
    "shift_address",
    "write_memory",
]


def content_address(
    memory: Float[Array, "*batch N M"],
    key: Float[Array, "*batch H M"],
    strength: Float[Array, "*batch H"],
    *,
    eps: float = 1e-8,
) -> Float[Array, "*batch H N"]:
    """`w_i = softmax over i of strength cos(key, memory_i)`, `cos(u, v) = u . v / (|u| |v|)`; strength >= 0.

    Norms are taken as at least `eps`, as in `torch.cosine_similarity`.

    >>> content_address(jnp.eye(2), jnp.array([[3.0, 0.0]]), jnp.array([50.0])).round(3)
    Array([[1., 0.]], dtype=float32)

    Raises:
      ValueError: memory and key of other shapes.
    """
    if memory.ndim < 2 or key.shape[:-2] != memory.shape[:-2] or key.shape[-1] != memory.shape[-1]:
        raise ValueError(
            f"content_address: memory is {list(memory.shape)} and key is {list(key.shape)}; want memory [..., N, M] "
            f"and key [..., H, M]"
        )
    wide = wide_dtype(memory.dtype)
    u, v = _unit(key.astype(wide), eps), _unit(memory.astype(wide), eps)
    cosine = jnp.einsum("...hm,...nm->...hn", u, v)
    return jax.nn.softmax(strength.astype(wide)[..., None] * cosine, axis=-1).astype(memory.dtype)


def _unit(x: Array, eps: float) -> Array:
    # The maximum inside the root: the derivative of the root at 0 is not finite.
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, eps**2))


def interpolate_address(
    content: Float[Array, "*batch N"], before: Float[Array, "*batch N"], gate: Float[Array, "*batch"]
) -> Float[Array, "*batch N"]:
    """`w = gate content + (1 - gate) before`, with one gate in [0, 1] for each address.

    >>> interpolate_address(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), jnp.array(0.25))
    Array([0.25, 0.75], dtype=float32)
    """
    return gate[..., None] * content + (1 - gate[..., None]) * before


def shift_address(address: Float[Array, "*batch N"], shift: Float[Array, "*batch S"]) -> Float[Array, "*batch N"]:
    """`w_i = sum over k of address_(i - k) shift_k`, `k = -r .. r`, `S = 2 r + 1`: a circular convolution.

    `shift` is a distribution over how far the address moves: its last entry is the chance of r slots forwards.

    >>> shift_address(jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 1.0]))
    Array([0., 1., 0., 0.], dtype=float32)

    Raises:
      ValueError: an even number of shifts, or more than there are slots.
    """
    size = shift.shape[-1]
    if size % 2 == 0 or size > address.shape[-1]:
        raise ValueError(
            f"shift_address: shift has {size} entries for {address.shape[-1]} slots; want an odd number, -r .. r, and "
            f"no more than slots"
        )
    moved = [shift[..., k, None] * jnp.roll(address, k - size // 2, axis=-1) for k in range(size)]
    return sum(moved[1:], moved[0])


def sharpen_address(address: Float[Array, "*batch N"], power: Float[Array, "*batch"]) -> Float[Array, "*batch N"]:
    """`w_i = address_i^power / sum over j of address_j^power`, power >= 1.

    >>> [round(w, 3) for w in sharpen_address(jnp.array([0.75, 0.25]), jnp.array(2.0)).tolist()]
    [0.9, 0.1]
    """
    wide = address.astype(wide_dtype(address.dtype))
    # By logarithms: a large power of small numbers would be 0 / 0, and the derivative of 0^power by the power is NaN.
    logs = jnp.log(jnp.maximum(wide, jnp.finfo(wide.dtype).tiny))
    return jax.nn.softmax(power.astype(wide.dtype)[..., None] * logs, axis=-1).astype(address.dtype)


def read_memory(memory: Float[Array, "*batch N M"], address: Float[Array, "*batch H N"]) -> Float[Array, "*batch H M"]:
    """`r = sum over i of address_i memory_i`: what each head reads.

    >>> read_memory(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.5, 0.5]]))
    Array([[2., 3.]], dtype=float32)
    """
    return jnp.einsum("...hn,...nm->...hm", address, memory)


def write_memory(
    memory: Float[Array, "*batch N M"],
    address: Float[Array, "*batch H N"],
    erase: Float[Array, "*batch H M"],
    add: Float[Array, "*batch H M"],
) -> Float[Array, "*batch N M"]:
    """`memory_i = memory_i * prod over heads of (1 - address_i erase) + sum over heads of address_i add`.

    All heads erase before any adds, so their order does not matter. `erase` in [0, 1].

    >>> write_memory(jnp.ones((2, 1)), jnp.array([[1.0, 0.0]]), jnp.array([[0.5]]), jnp.array([[3.0]])).tolist()
    [[3.5], [1.0]]
    """
    kept = jnp.prod(1 - address[..., None] * erase[..., None, :], axis=-3)
    return memory * kept + jnp.einsum("...hn,...hm->...nm", address, add)
