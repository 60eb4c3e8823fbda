"""The Kronecker factors of a model's Fisher matrix, for `optim.kfac`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import tree
from dlkit.nn import Layer, Mode
from dlkit.optim import KfacLayer, KroneckerFactors
from dlkit.train.taps import TAPS, tapped, with_taps
from dlkit.train.task import Task

__all__ = ["Curvature", "kfac_layers"]

Outputs = Literal["categorical", "bernoulli", "normal"]
Estimator = Literal["sample", "exact", "empirical"]


@dataclass(frozen=True)
class Curvature:
    """Which Fisher matrix K-FAC sees: E[g g^T], g being the gradients of -log p(y | outputs), y drawn as told.

    Args:
      outputs: what the model's outputs are. "categorical": logits over the last axis. "bernoulli": a logit each.
        "normal": means of variance 1, so that the loss is half the squared error; where the loss is the squared error
        itself, the Fisher matrix is half of what it would be, which the damping and the learning rate take up.
      estimator: "sample" draws one y from the model for every example, with the mode's key, as the paper does.
        "exact" takes the mean over all y, with one backward pass for every output. "empirical" takes the targets and
        the loss of the task, and `outputs` does not matter: cheap, but no Fisher matrix, and worse in practice.

    The factors are A = E[a a^T], over all examples and all places that a layer's inputs have (pixels, tokens), and
    G = sum over places of E[g g^T], over examples. For a convolution this is the paper's Omega kron Gamma.
    Rows whose weight in the batch is 0 count for nothing in G; A sees them.

    >>> import jax.numpy as jnp
    >>> from dlkit import losses, nn
    >>> task = Task(nn.Linear(2, 3), losses.cross_entropy)
    >>> params = task.model.init(jax.random.key(0))
    >>> batch = {"x": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "y": jnp.array([0, 2])}
    >>> factors = Curvature(estimator="exact").factors(task, params, None, batch, nn.EVAL)
    >>> print(factors[""].a)
    [[ 5.  7.  2.]
     [ 7. 10.  3.]
     [ 2.  3.  1.]]

    Raises:
      ValueError: an unknown kind of outputs, or an unknown estimator.
    """

    outputs: Outputs = "categorical"
    estimator: Estimator = "sample"

    def __post_init__(self) -> None:
        for name, known in (
            ("outputs", ("categorical", "bernoulli", "normal")),
            ("estimator", ("sample", "exact", "empirical")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"Curvature: {name} is {getattr(self, name)!r}, wanted one of {', '.join(known)}")

    def factors(
        self, task: Task, params: Any, state: Any, batch: Mapping[str, Any], mode: Mode
    ) -> dict[str, KroneckerFactors]:
        """The factors of one batch, by the path of the layer: those that `kfac_layers(task.model)` names.

        A layer that the model does not call gets identities. Under jit the forward pass is shared with that of the
        loss, where both are given the same mode.

        Raises:
          ValueError: "sample" without a key; "exact" where the outputs are not `[B, C]`.
        """
        model = tapped(task.model)
        shapes = _tap_shapes(model)
        zeros = {path: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), taps) for path, taps in shapes.items()}
        x, y = (_fields(batch, names) for names in (task.inputs, task.targets))

        def run(taps: Any) -> Any:
            return model.apply(with_taps(params, taps), state, x, mode)[0]

        outputs, back = jax.vjp(run, zeros)
        weight = batch.get("weight")
        if weight is None:
            weight = jnp.ones(outputs.shape[0])
        total = jnp.maximum(jnp.sum(weight), jnp.asarray(jnp.finfo(jnp.float32).tiny, weight.dtype))

        def pulled(g: Array) -> Any:
            root = jnp.sqrt(weight).astype(g.dtype).reshape(*weight.shape, *(1,) * (g.ndim - weight.ndim))
            return back((root * g).astype(outputs.dtype))[0]

        if self.estimator == "exact":
            if outputs.ndim != 2:
                raise ValueError(
                    f'Curvature: estimator "exact" wants outputs [B, C], got {list(outputs.shape)}: take "sample"'
                )
            # `rows` and A are the same in every pass; G is the sum of all.
            found = jax.lax.map(lambda k: pulled(self._column(_wide(outputs), k)), jnp.arange(outputs.shape[1]))
            moments = {
                path: {"a": t["a"][0], "g": jnp.sum(t["g"], axis=0), "rows": t["rows"][0]} for path, t in found.items()
            }
        elif self.estimator == "sample":
            key = mode.rng("curvature")
            if key is None:
                raise ValueError(
                    'Curvature: estimator "sample" draws: pass training(key), not EVAL, or take estimator="exact"'
                )
            moments = pulled(self._sampled(_wide(outputs), key))
        else:
            moments = pulled(jax.grad(lambda z: jnp.sum(task.loss(z, y)))(outputs))
        return {path: _factors(taps, total) for path, taps in moments.items()}

    def _sampled(self, z: Array, key: Any) -> Array:
        """The gradient at outputs z of -log p(y), y drawn from p."""
        if self.outputs == "normal":
            return jax.random.normal(key, z.shape, z.dtype)
        if self.outputs == "bernoulli":
            p = jax.nn.sigmoid(z)
            return p - jax.random.bernoulli(key, p).astype(z.dtype)
        drawn = jax.random.categorical(key, z, axis=-1)
        return jax.nn.softmax(z, axis=-1) - jax.nn.one_hot(drawn, z.shape[-1], dtype=z.dtype)

    def _column(self, z: Array, k: Array) -> Array:
        """The k-th of C vectors whose outer products sum up to the Fisher matrix of p at outputs z `[B, C]`."""
        unit = jax.nn.one_hot(k, z.shape[-1], dtype=z.dtype)[None]
        if self.outputs == "normal":
            return jnp.broadcast_to(unit, z.shape)
        if self.outputs == "bernoulli":
            p = jax.nn.sigmoid(z)
            return jnp.sqrt(p * (1 - p)) * unit
        p = jax.nn.softmax(z, axis=-1)
        return jnp.sqrt(jnp.sum(p * unit, axis=-1, keepdims=True)) * (unit - p)


def kfac_layers(model: Layer[Any, Any]) -> tuple[KfacLayer, ...]:
    """The layers of the model that have Kronecker factors: every `Linear`, and every `Conv` with `groups=1`.

    For `optim.kfac(..., layers=kfac_layers(model))`, where the model has other layers with weights `w`, or a `Stack`.

    >>> from dlkit import nn
    >>> kfac_layers(nn.Chain(nn.Conv(1, 4, 3), nn.Relu(), nn.Stack(nn.Linear(4, 4), 3)))
    (KfacLayer(path='conv1', stacked=0), KfacLayer(path='stack1', stacked=1))
    """
    shapes = _tap_shapes(tapped(model))
    return tuple(KfacLayer(path, len(taps["rows"].shape)) for path, taps in shapes.items())


def _tap_shapes(model: Layer[Any, Any]) -> dict[str, dict[str, Any]]:
    leaves = tree.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    found: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves.items():
        above, _, name = path.rpartition("/")
        if above == TAPS or above.endswith(f"/{TAPS}"):
            found.setdefault(above[: -len(TAPS)].rstrip("/"), {})[name] = leaf
    return found


def _factors(taps: Mapping[str, Array], total: Array) -> KroneckerFactors:
    called = taps["rows"] > 0
    rows = jnp.where(called, taps["rows"], 1)[..., None, None]
    pair = (taps["a"] / rows, taps["g"] / total.astype(taps["g"].dtype))
    unused = ~called[..., None, None]
    return KroneckerFactors(*(jnp.where(unused, jnp.eye(m.shape[-1], dtype=m.dtype), m) for m in pair))


def _wide(z: Float[Array, "..."]) -> Float[Array, "..."]:
    return z.astype(jnp.float32) if jnp.finfo(z.dtype).bits < 32 else z


def _fields(batch: Mapping[str, Any], names: Any) -> Any:
    return batch.get(names) if isinstance(names, str) else tuple(batch.get(name) for name in names)
