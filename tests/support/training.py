"""A small problem for the tests of training: two clouds of points, a network with everything that a state can hold."""

from typing import Any

import jax
import numpy as np

from dlkit import data, losses, metrics, nn, optim, train


def points(n: int = 103, seed: int = 0) -> data.Arrays:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n).astype(np.int32)
    x = rng.standard_normal((n, 4)) + y[:, None]
    return data.Arrays(x=x.astype(np.float32), y=y)


def network(*, dropout: float = 0.25, norm: bool = True) -> nn.Chain:
    middle: list[Any] = [nn.BatchNorm(8)] if norm else []
    return nn.Chain(nn.Linear(4, 8), *middle, nn.Relu(), nn.Dropout(dropout), head=nn.Linear(8, 3))


def task(model: Any = None, **more: Any) -> train.Task:
    kept = {"metrics": {"accuracy": metrics.Accuracy()}} | more
    return train.Task(network() if model is None else model, losses.cross_entropy, **kept)


def optimizer() -> Any:
    return optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(optim.cosine_decay_schedule(0.05, 60)))


def batch(n: int = 8, seed: int = 0) -> dict[str, Any]:
    made = next(iter(data.Loader(points(n, seed), n, seed=seed).epoch(0)))
    return jax.device_put(made)


def equal(a: Any, b: Any) -> bool:
    """Same structure, dtypes, shapes, and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(map(raw, jax.tree.leaves(a)), map(raw, jax.tree.leaves(b)), strict=True)
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


def raw(leaf: Any) -> np.ndarray:
    key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf)
