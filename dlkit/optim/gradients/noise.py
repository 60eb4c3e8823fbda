"""Gaussian noise on the gradients, from a key that the state carries."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from dlkit.optim.hyper import Scalar, ScalarOrSchedule, safe_increment, settle
from dlkit.optim.leaves import leafwise
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.transform import Chain, Transform, chain

__all__ = ["AddNoise", "AddNoiseState", "add_noise", "noisy_sgd"]


class AddNoiseState(NamedTuple):
    """Updates so far (int32), and the data of the key for the next one: plain integers, so checkpoints can hold it."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    rng_key: UInt32[Array, "..."]


@dataclass(frozen=True)
class KeyData:
    """A random key in a hashable form."""

    implementation: str
    data: tuple[int, ...]


@dataclass(frozen=True)
class AddNoise(Transform[AddNoiseState]):
    """u = g + sqrt(eta / t^gamma) n, where n is standard normal and t = 1 in the first update.

    The state holds the key: each update splits it, draws from one half and keeps the other. So a run that goes on from
    a saved state draws what it would have drawn, and two transforms with one key draw the same. Under `vmap` over
    parameters, every member has the same key: give each its own state with `state._replace(rng_key=...)`.

    Args:
      eta: the variance of the noise in the first update.
      gamma: how fast the variance falls.
      key: a `jax.random.key`, or an int that stands for `jax.random.key(int)`. It has to be given.
      seed: another name for `key`, as in optax.

    Differences. optax: equal, draw by draw; without a key it warns and takes 0, and its state holds a typed key.

    Reference: Neelakantan et al., "Adding gradient noise improves learning for very deep networks", 2015.

    >>> tx = add_noise(0.01, 0.55, key=0)
    >>> state = tx.init({"w": jnp.ones(3)})
    >>> for _ in range(2):
    ...     updates, state = tx.update({"w": jnp.zeros(3)}, state)
    ...     print(bool(jnp.all(jnp.abs(updates["w"]) < 0.5)), len(set(updates["w"].tolist())))
    True 3
    True 3

    Raises:
      TypeError: `key` is missing, or neither an int nor one key.
      ValueError: a negative `eta` or `gamma`, or both a key and a seed.
    """

    eta: Scalar
    gamma: Scalar
    key: Any = None
    seed: Any = None

    def __post_init__(self) -> None:
        settle("add_noise", self, nonnegative=("eta", "gamma"))
        if self.seed is not None and self.key is not None:
            raise ValueError("add_noise: both key and seed are given, wanted one of them")
        object.__setattr__(self, "key", _settle_key(self.seed if self.key is None else self.key))
        object.__setattr__(self, "seed", None)

    def init(self, params: Any) -> AddNoiseState:
        if isinstance(self.key, int):
            data = jax.random.key_data(jax.random.key(self.key))
        else:
            data = jnp.asarray(self.key.data, jnp.uint32)
        return AddNoiseState(jnp.zeros((), jnp.int32), data)

    def update(self, grads: Any, state: AddNoiseState, params: Any = None) -> tuple[Any, AddNoiseState]:
        count = safe_increment(state.count)
        impl = None if isinstance(self.key, int) else self.key.implementation
        kept, drawn = jax.random.split(jax.random.wrap_key_data(state.rng_key, impl=impl))
        leaves, structure = jax.tree.flatten(grads)
        keys = jax.random.split(drawn, len(leaves)) if leaves else ()
        noise = [jax.random.normal(k, jnp.shape(g), jnp.result_type(g)) for k, g in zip(keys, leaves, strict=True)]
        dtype = jnp.result_type(float)
        deviation = jnp.sqrt(self.eta / count.astype(dtype) ** self.gamma)
        (updates,) = leafwise(
            "add_noise",
            lambda g, n: g + deviation.astype(g.real.dtype) * n,
            grads,
            read=(structure.unflatten(noise),),
        )
        return updates, AddNoiseState(count, jax.random.key_data(kept))


def _settle_key(key: Any) -> int | KeyData:
    if isinstance(key, KeyData):
        return key
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return int(key)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        data = np.asarray(jax.random.key_data(key))
        return KeyData(str(jax.random.key_impl(key)), tuple(int(word) for word in data))
    raise TypeError(f"add_noise: key is {key!r}, wanted an int or one `jax.random.key`")


add_noise = AddNoise


def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: Scalar = 0.01,
    gamma: Scalar = 0.55,
    key: Any = None,
    *,
    seed: Any = None,
) -> Chain:
    """Gradient descent with noise that fades: p = p - learning_rate (g + sqrt(eta / t^gamma) n).

    Args:
      learning_rate: a number, a schedule, or a callable from the count to a rate.
      eta, gamma, key, seed: see `AddNoise`. A key has to be given.

    Differences. optax: equal, draw by draw; without a key it warns and takes 0. torch and Keras have none. Langevin
    dynamics (SGLD) has noise whose variance is in proportion to the rate: it is another rule.

    Reference: Neelakantan et al., "Adding gradient noise improves learning for very deep networks", 2015.

    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> tx = noisy_sgd(0.1, key=0)
    >>> state = tx.init(params)
    >>> for _ in range(30):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    >>> bool(loss(params) < 0.01)
    True

    Raises:
      TypeError: `key` is missing, or neither an int nor one key.
      ValueError: a negative `eta` or `gamma`, or both a key and a seed.
    """
    return chain(add_noise(eta, gamma, key, seed), scale_by_learning_rate(learning_rate))
