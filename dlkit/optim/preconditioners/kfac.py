"""K-FAC: every layer's Fisher matrix as a Kronecker product of two small ones. The factors come from outside."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dlkit import tree
from dlkit.functional import decompositions
from dlkit.optim.gradients.decay import add_decayed_weights
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_count, safe_increment, schedule_value, settle
from dlkit.optim.leaves import check_real, widest
from dlkit.optim.preconditioners.axes import HIGHEST, wide_dtype
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale_by_learning_rate
from dlkit.optim.traced import as_dtype
from dlkit.optim.transform import Chain, Transform, chain
from dlkit.optim.wrappers.masks import Mask

__all__ = ["KfacLayer", "KroneckerFactors", "ScaleByKfac", "ScaleByKfacState", "kfac", "scale_by_kfac"]


class KroneckerFactors(NamedTuple):
    """Of one layer `y = a^T W`: A = E[a a^T], with a 1 at the end of a where there is a bias, and G = E[g g^T].

    The Fisher matrix of W `[d_in, d_out]`, flattened row by row, is about A kron G.
    """

    a: Float[Array, "*many d d"]
    g: Float[Array, "*many o o"]


@dataclass(frozen=True)
class KfacLayer:
    """A layer with Kronecker factors: the path of its parameters `w` and, where it has a bias, `b`.

    All axes of `w` but the last are the input (the kernel's places and the channels of a convolution); the first
    `stacked` ones number layers of equal shape that run one after the other (`nn.Stack`).
    """

    path: str
    stacked: int = 0

    def leaf(self, name: str) -> str:
        return f"{self.path}/{name}".lstrip("/")

    def matrix(self, leaves: Mapping[str, Any]) -> Array:
        """`[*stacked, d_in (+ 1), d_out]`: the weights with the bias as the last row."""
        w = jnp.asarray(leaves[self.leaf("w")])
        matrix = w.reshape(*w.shape[: self.stacked], -1, w.shape[-1])
        if not self.has_bias(leaves):
            return matrix
        return jnp.concatenate([matrix, jnp.asarray(leaves[self.leaf("b")], w.dtype)[..., None, :]], axis=-2)

    def has_bias(self, leaves: Mapping[str, Any]) -> bool:
        shape = jnp.shape(leaves[self.leaf("w")])
        return self.leaf("b") in leaves and jnp.shape(leaves[self.leaf("b")]) == (*shape[: self.stacked], shape[-1])

    def split(self, matrix: Array, leaves: Mapping[str, Any]) -> dict[str, Array]:
        """The leaves again, by path."""
        w, b = self.leaf("w"), self.leaf("b")
        if not self.has_bias(leaves):
            return {w: matrix.reshape(jnp.shape(leaves[w]))}
        return {w: matrix[..., :-1, :].reshape(jnp.shape(leaves[w])), b: matrix[..., -1, :]}


class ScaleByKfacState(NamedTuple):
    """Averaged factors and their damped inverses, by the path of the layer, in float32 or wider."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    seen: Int[Array, ""]  # how often factors were given
    factors: dict[str, KroneckerFactors]
    inverses: dict[str, KroneckerFactors]


@dataclass(frozen=True)
class ScaleByKfac(Transform[ScaleByKfacState]):
    """u = A^(-1) g G^(-1), A and G damped: see `kfac`.

    `update(grads, state, params, factors=...)` takes new factors by path; without them the averages stay.

    >>> tx = scale_by_kfac(damping=1e-8, kl_clip=None)
    >>> grads = {"w": jnp.array([[4.0, 0.0], [0.0, 1.0]])}
    >>> factors = {"": KroneckerFactors(a=jnp.diag(jnp.array([4.0, 1.0])), g=jnp.eye(2))}
    >>> tx.update(grads, tx.init(grads), factors=factors)[0]["w"].round(3)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)

    Raises:
      ValueError: `decay` outside of [0, 1), `damping` or `kl_clip` not above 0, `inverse_every` below 1; from `init`, a
        layer that is not among the parameters; from `update`, factors of other layers or shapes.
    """

    damping: ScalarOrSchedule = 1e-3
    decay: Scalar = 0.95
    inverse_every: int = 10
    kl_clip: Scalar | None = 1e-3
    learning_rate: ScalarOrSchedule = 1.0
    layers: tuple[KfacLayer, ...] | None = None

    def __post_init__(self) -> None:
        owner = "scale_by_kfac"
        clips = () if self.kl_clip is None else ("kl_clip",)
        settle(owner, self, decays=("decay",), nonnegative=clips, schedules=("damping", "learning_rate"))
        for name in ("damping", *clips):
            value = getattr(self, name)
            if isinstance(value, float) and not value > 0:
                raise ValueError(f"{owner}: {name} is {value}, wanted more than 0")
        object.__setattr__(self, "inverse_every", as_count(owner, "inverse_every", self.inverse_every, 1))
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))

    def init(self, params: Any) -> ScaleByKfacState:
        check_real("scale_by_kfac", params)
        leaves = tree.flatten(params)
        factors, inverses = {}, {}
        for layer in self._layers(leaves):
            shape, dtype = (
                jax.eval_shape(layer.matrix, leaves).shape,
                wide_dtype(jnp.result_type(leaves[layer.leaf("w")])),
            )
            for of in (factors, inverses):
                eyes = (jnp.broadcast_to(jnp.eye(d, dtype=dtype), (*shape[:-2], d, d)) for d in shape[-2:])
                of[layer.path] = KroneckerFactors(*eyes)
        count, seen = (jnp.zeros((), jnp.int32) for _ in range(2))
        return ScaleByKfacState(count, seen, factors, inverses)

    def _layers(self, leaves: Mapping[str, Any]) -> tuple[KfacLayer, ...]:
        if self.layers is None:
            return tuple(
                KfacLayer(path.rpartition("/")[0])
                for path, leaf in leaves.items()
                if path.rpartition("/")[2] == "w" and jnp.ndim(leaf) > 1
            )
        for layer in self.layers:
            if jnp.ndim(leaves.get(layer.leaf("w"), 0)) < layer.stacked + 2:
                raise ValueError(
                    f"scale_by_kfac: {layer} has no matrix {layer.leaf('w')!r} among the parameters "
                    f"{', '.join(map(repr, leaves))}"
                )
        return self.layers

    def update(
        self,
        grads: Any,
        state: ScaleByKfacState,
        params: Any = None,
        *,
        factors: Mapping[str, KroneckerFactors] | None = None,
    ) -> tuple[Any, ScaleByKfacState]:
        owner, seen, held = "scale_by_kfac", state.seen, state.factors
        leaves = tree.flatten(grads)
        layers = self._layers(leaves)
        if set(held) != {layer.path for layer in layers}:
            raise ValueError(
                f"{owner}: the gradients do not match the state (made for other parameters?): the layers are "
                f"{sorted(layer.path for layer in layers)}, the state has {sorted(held)}"
            )
        refresh = state.count % self.inverse_every == 0
        if factors is not None:
            _check_factors(held, factors)
            seen = safe_increment(seen)
            refresh = refresh | (seen == 1)
            # min(1 - 1/k, decay): an average of all that was seen, until there is enough of it.
            old = jnp.minimum(1 - 1 / seen.astype(jnp.result_type(float)), as_dtype(self.decay, jnp.result_type(float)))
            held = {
                path: jax.tree.map(
                    lambda h, new: old.astype(h.dtype) * h + (1 - old).astype(h.dtype) * new.astype(h.dtype),
                    held[path],
                    KroneckerFactors(*factors[path]),
                )
                for path in held
            }
        damping = schedule_value(owner, self.damping, state.count)
        inverses = jax.lax.cond(
            refresh,
            _renewed,
            _kept,
            held,
            state.inverses,
            damping,
        )
        moved, total = {}, jnp.zeros((), jnp.float32)
        for layer in layers:
            inverse, matrix = inverses[layer.path], layer.matrix(leaves)
            dtype = widest(inverse.a.dtype, matrix.dtype)
            a, g, matrix = inverse.a.astype(dtype), inverse.g.astype(dtype), matrix.astype(dtype)
            u = jnp.matmul(jnp.matmul(a, matrix, precision=HIGHEST), g, precision=HIGHEST)
            total = total + jnp.sum(u * matrix).astype(jnp.float32)
            moved |= layer.split(u, leaves)
        if self.kl_clip is not None and moved:
            rate = schedule_value(owner, self.learning_rate, state.count).astype(jnp.float32)
            size = jnp.square(rate) * total
            limit = as_dtype(self.kl_clip, jnp.float32)
            shorter = jnp.where(size > limit, jnp.sqrt(limit / jnp.where(size > limit, size, limit)), 1)
            moved = {path: u * shorter.astype(u.dtype) for path, u in moved.items()}
        updates = tree.map_with_path(lambda path, g: moved.get(path, g), grads)
        return updates, ScaleByKfacState(safe_increment(state.count), seen, held, inverses)


scale_by_kfac = ScaleByKfac


def _check_factors(held: Mapping[str, KroneckerFactors], factors: Mapping[str, Any]) -> None:
    if missing := sorted(set(held) - set(factors)):
        raise ValueError(
            f"scale_by_kfac: there are no factors for {missing[0]!r}, only for {sorted(factors)}: say which layers "
            f"have some, layers=train.kfac_layers(model)"
        )
    for path, pair in held.items():
        wanted, got = ([jnp.shape(m) for m in of] for of in (pair, factors[path]))
        if wanted != got:
            raise ValueError(
                f"scale_by_kfac: the factors of {path!r} have shapes {got}, wanted {wanted}: is it stacked? "
                f"layers=train.kfac_layers(model) says so"
            )


def _renewed(factors: Any, inverses: Any, damping: Array) -> Any:
    return {path: damped_inverses(pair, damping) for path, pair in factors.items()}


def _kept(factors: Any, inverses: Any, damping: Array) -> Any:
    return inverses


def damped_inverses(factors: KroneckerFactors, damping: Array) -> KroneckerFactors:
    """(A + pi gamma I)^(-1) and (G + gamma / pi I)^(-1), gamma = sqrt(damping).

    Their product is about the inverse of A kron G + damping I.

    pi^2 is the ratio of the mean eigenvalues of A and G; where one of them is 0, pi is 1.
    """
    dtype = factors.a.dtype
    of_a, of_g = (jnp.trace(m, axis1=-2, axis2=-1) / m.shape[-1] for m in factors)
    usable = (of_a > 0) & (of_g > 0)
    pi = jnp.sqrt(jnp.where(usable, of_a, 1) / jnp.where(usable, of_g, 1))
    gamma = jnp.sqrt(damping).astype(dtype)
    return KroneckerFactors(_inverse(factors.a, pi * gamma), _inverse(factors.g, gamma / pi))


def _inverse(matrix: Array, damping: Array) -> Array:
    # By eigenvalues rather than Cholesky: what rounding made negative counts as 0, so there is always an inverse.
    values, vectors = decompositions.eigh(matrix)
    scaled = vectors / (jnp.maximum(values, 0) + damping[..., None])[..., None, :]
    return jnp.matmul(scaled, jnp.swapaxes(vectors, -1, -2), precision=HIGHEST)


def kfac(
    learning_rate: ScalarOrSchedule,
    damping: ScalarOrSchedule = 1e-3,
    momentum: Scalar = 0.9,
    decay: Scalar = 0.95,
    inverse_every: int = 10,
    kl_clip: Scalar | None = 1e-3,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    layers: tuple[KfacLayer, ...] | None = None,
    nesterov: bool = False,
) -> Chain:
    """K-FAC: the natural gradient with a Fisher matrix of one block a layer, each a Kronecker product.

        A = e A + (1 - e) E[a a^T],  G = e G + (1 - e) E[g g^T],    e = min(1 - 1/k, decay), k = 1 in the first update
        pi^2 = (tr A / d_A) / (tr G / d_G),  gamma = sqrt(damping)
        u = (A + pi gamma I)^(-1) g (G + gamma / pi I)^(-1)         inverses: in every n-th update, from the first on
        u = u min(1, sqrt(kl_clip / (eta^2 sum u g)))               over all layers
        v = momentum v + u,  p = p - eta (v + weight_decay p)

    a are the inputs of a layer, with a 1 at the end for the bias, and g the gradients of the log-likelihood with
    respect to its outputs. `train.make_step(task, optimizer, curvature=train.Curvature(...))` gets both from a model
    with linear and convolutional layers; in a loop of your own, call `update(grads, state, params, factors=...)` with
    the factors by the path of each layer. Without `factors` the averages stay as they are: gather them every few
    steps if they are dear. Parameters without factors (norms, embeddings) keep their gradient.

    Args:
      learning_rate: eta: a number, a schedule, or a callable from the count to a rate.
      damping: lambda: a number or a schedule. The larger, the more this is gradient descent with a rate eta / lambda.
      momentum: the weight of the old velocity; 0 for none.
      decay: the weight of the old factors.
      inverse_every: in how many updates the inverses are computed once, in float32 or wider, by eigenvalues.
      kl_clip: bounds eta^2 u^T F u, twice the KL divergence that the step makes; None for no bound.
      weight_decay: decoupled: a number or a schedule.
      mask: which parameters decay: None for all, path globs, a tree of booleans, or a callable.
      layers: the layers with factors, `train.kfac_layers(model)`; None means every `w` of two axes or more and the `b`
        beside it.
      nesterov: whether the momentum looks ahead.

    Differences. optax, torch and Keras have no K-FAC. The papers choose the rate, the momentum and the damping anew in
    each step, from products with the exact Fisher matrix; here they are numbers or schedules, and `kl_clip` shortens
    a step that goes too far, as in most implementations. kfac-jax finds layers in the jaxpr.

    References: Martens, Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature", 2015.
    Grosse, Martens, "A Kronecker-factored approximate Fisher matrix for convolution layers", 2016. Ba, Grosse, Martens,
    "Distributed second-order optimization using Kronecker-factored approximations", 2017 (the clip).

    >>> from dlkit import optim
    >>> x = jnp.array([[1.0, 0.0], [0.0, 0.1]])  # the second coordinate is 100 times as flat as the first
    >>> loss = lambda p: jnp.mean(jnp.sum((x @ p["w"] - x) ** 2, axis=1)) / 2
    >>> params = {"w": jnp.zeros((2, 2))}
    >>> tx = kfac(0.5, damping=1e-4, momentum=0.0, kl_clip=None)
    >>> state = tx.init(params)
    >>> factors = {"": KroneckerFactors(a=x.T @ x / 2, g=jnp.eye(2))}
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params, factors=factors)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.4f}")
    0.0676
    0.0184
    0.0051

    Raises:
      ValueError: as `scale_by_kfac`, or a negative argument.
    """
    velocity = trace(momentum, nesterov)
    return chain(
        scale_by_kfac(damping, decay, inverse_every, kl_clip, learning_rate if kl_clip is not None else 1.0, layers),
        *((velocity,) if velocity.decay else ()),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
