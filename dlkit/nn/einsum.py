"""Affine maps over several axes at once, and a gate between a layer and a shortcut."""

import math
import re
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit.nn.checks import check_float, describe
from dlkit.nn.initializers import Initializer, Zeros, lecun_normal
from dlkit.nn.layer import Layer, Pure, child_state
from dlkit.nn.mode import Mode, fold_name

__all__ = ["Einsum", "Highway"]


class EinsumParams(TypedDict):
    w: Float[Array, "*shape"]
    b: NotRequired[Float[Array, "*bias"]]


@dataclass(frozen=True)
class Einsum(Pure[EinsumParams]):
    """`y = einsum(equation, x, w) + b`: a linear map over any axes, with `w` of the given `shape`.

    `"...d,dhk->...hk"` makes heads of features, `"...hk,hkd->...d"` sums them up again, `"...gd,gde->...ge"` is one
    matrix for each group. `...` stands for free axes. `bias` names the axes of the output that b has, in order, `"hk"`;
    none by default.

    Parameters: `w` of `shape`, from variance `1 / fan_in`: fan_in is the product of w's axes that y does not have,
    fan_out of those that x does not have; axes that all three have are groups. `b` from 0. flax and Keras take the
    shapes of the bias, or its axes, likewise (nnx.Einsum, EinsumDense).

    >>> layer = Einsum("...d,dhk->...hk", (6, 2, 3), bias="hk")
    >>> params = layer.init(jax.random.key(0))
    >>> params["b"].shape, layer(params, jnp.ones((4, 5, 6))).shape
    ((2, 3), (4, 5, 2, 3))

    Raises:
      ValueError: an equation that is not `x,w->y` in letters (and `...` in x and y), one that does not fit `shape`, a
        bias axis whose size `shape` does not tell, or an x that does not fit.
      TypeError: x is not floating point, or not of the weights' dtype.
    """

    equation: str
    shape: tuple[int, ...]
    bias: str = ""
    w_init: Initializer = lecun_normal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        x, w, y = self._axes
        if len(w) != len(self.shape) or any(size < 1 for size in self.shape):
            raise ValueError(f"{describe(self)}: expected a shape with one positive size for each of w's axes {w!r}")
        if lost := [axis for axis in w if axis not in x and axis not in y]:
            raise ValueError(
                f"{describe(self)}: w's axis {lost[0]!r} is neither in x nor in y: expected it in one of them"
            )
        if unknown := [axis for axis in self.bias if axis not in y or axis not in w]:
            raise ValueError(f"{describe(self)}: expected bias axes that y has and w has, not {unknown[0]!r}")
        if [axis for axis in y if axis in self.bias] != list(self.bias):
            raise ValueError(f"{describe(self)}: expected the bias axes once and in the order of y, {y!r}")

    @property
    def _axes(self) -> tuple[str, str, str]:
        free = r"(?:\.\.\.)?[a-zA-Z]*"
        found = re.fullmatch(rf"({free}),([a-zA-Z]+)->({free})", self.equation)
        if found is None:
            raise ValueError(f"Einsum got equation={self.equation!r}: expected 'x,w->y', such as '...d,dhk->...hk'")
        x, w, y = found.groups()
        if ("..." in x) != ("..." in y):
            raise ValueError(f"{describe(self)}: expected ... in both x and y, or in neither")
        return x, w, y

    def init(self, key: Any) -> EinsumParams:
        x, w, y = self._axes
        sizes = dict(zip(w, self.shape, strict=True))
        fans = (
            math.prod(n for a, n in sizes.items() if a not in y),
            math.prod(n for a, n in sizes.items() if a not in x),
        )
        params: EinsumParams = {"w": self.w_init(fold_name(key, "w"), self.shape, fans=fans)}
        if self.bias:
            params["b"] = self.b_init(fold_name(key, "b"), tuple(sizes[axis] for axis in self.bias), fans=fans)
        return params

    def __call__(self, params: EinsumParams, x: Array) -> Float[Array, "*out"]:
        check_float(self, x, params["w"])
        inside, w, outside = self._axes
        named, sizes = inside.replace("...", ""), dict(zip(w, self.shape, strict=True))
        given = x.shape[x.ndim - len(named) :] if x.ndim >= len(named) else ()
        fits = len(given) == len(named) and ("..." in inside or x.ndim == len(named))
        if not fits or any(sizes.get(axis, n) != n for axis, n in zip(named, given, strict=True)):
            wanted = ", ".join(f"{axis}={sizes[axis]}" for axis in named if axis in sizes)
            raise ValueError(
                f"{describe(self)} got x of shape {x.shape}: expected the axes {inside!r} with {wanted} because "
                f"shape={self.shape}, got {', '.join(map(str, given)) or 'too few axes'}"
            )
        y = jnp.einsum(self.equation, x, params["w"])
        if "b" not in params:
            return y
        last = outside.replace("...", "")
        shape = [sizes[axis] if axis in self.bias else 1 for axis in last]
        return y + params["b"].reshape((1,) * (y.ndim - len(last)) + tuple(shape))


@dataclass(frozen=True)
class Highway(Layer[Any, Any]):
    """`y = t * body(x) + (1 - t) * x` with `t = sigmoid(gate(x))`: a shortcut whose share is learned.

    x and y `[..., d]`. `gate` is an affine map such as `Linear(d, d, b_init=Constant(-2.0))`: a bias below 0 lets x
    pass at first, which is what deep stacks of these need. Parameters and state: those of `body` and `gate`.

    >>> from dlkit import nn
    >>> gate = nn.Linear(4, 4, b_init=nn.initializers.Constant(-2.0))
    >>> layer = Highway(nn.Chain(nn.Linear(4, 4), nn.Relu()), gate)
    >>> y, _ = layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((3, 4)), nn.EVAL)
    >>> y.shape
    (3, 4)

    Raises:
      ValueError: body or gate gives another shape than that of x.

    Reference: Srivastava, Greff and Schmidhuber, Highway networks, 2015, arXiv:1505.00387.
    """

    body: Layer
    gate: Layer

    def apply(self, params: Any, state: Any, x: Array, mode: Mode) -> tuple[Float[Array, "*shape"], Any]:
        remembered = {}

        def run(name: str) -> Array:
            layer = getattr(self, name)
            y, after = layer.apply(params[name], child_state(state, name), x, mode.at(name))
            if y.shape != x.shape:
                raise ValueError(
                    f"Highway mixes x of shape {x.shape} and {name}(x) of shape {y.shape}: expected one shape"
                )
            if after is not None:
                remembered[name] = after
            return y

        h, t = run("body"), jax.nn.sigmoid(run("gate"))
        return t * h + (1 - t) * x, remembered or None
