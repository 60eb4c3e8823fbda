"""The mixture-of-experts layer, in place of a feed-forward network."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import functional
from dlkit.functional import RouterStats
from dlkit.functional.precision import wide_dtype
from dlkit.nn.activations import Silu
from dlkit.nn.checks import check_axis, check_float, describe
from dlkit.nn.initializers import Initializer, lecun_normal
from dlkit.nn.layer import Layer, Pure
from dlkit.nn.mode import Mode, fold_name

__all__ = ["MoE", "moe_loss"]


@dataclass(frozen=True)
class MoE(Layer[Any, RouterStats | None]):
    """`y = sum over the top_k best experts e of p_e expert_e(x)`, `p = softmax(x router)`: x `[..., d]`, y `[..., d]`.

    An expert is a gated feed-forward network without biases, `expert(x) = (act(x gate) * (x up)) down` with `hidden`
    units, as in Mixtral; a plain one, `act(x up) down`, at `gated=False` (Switch: with `Relu()` and `top_k=1`). The p
    of the chosen are divided by their sum for `top_k > 1`, or as `renormalize` says. The router is computed in float32
    or wider.

    Without `capacity_factor` every token is computed by all its experts. With it an expert takes at most
    `ceil(capacity_factor * top_k * N / experts)` of the N tokens of a call, first choices first; the others get nothing
    from it, so that in a residual block they pass unchanged. Tokens of other examples then matter.

    With `choice="experts"` the experts choose: each takes the `ceil(capacity_factor * top_k * N / experts)` tokens with
    the highest p (factor 1 if None), and a token is computed by `top_k` experts on average, weights p as they are. The
    load is then even without a `balance` loss, but what is chosen depends on later tokens: not where the next one is
    predicted. See `functional.expert_choice`.

    Keyword of `apply`: `mask`, True for real tokens `[...]`; the others give 0, take no room and count for nothing.

    State: the `RouterStats` of the last call. Its `balance` and `z` are losses to be added, by `moe_loss(state)`, in
    the function that is differentiated: what `apply` returns there carries gradients. `load` and `dropped` are to be
    watched.

    Parameters: `router/w` `[d, experts]`, `gate/w` and `up/w` `[experts, d, hidden]`, `down/w` `[experts, hidden, d]`.
    In Mixtral `gate`, `w1`, `w3` and `w2`, transposed.

    >>> from dlkit.nn import training
    >>> layer = MoE(8, 16, experts=4, top_k=2)
    >>> params, state = layer.init(jax.random.key(0)), layer.init_state()
    >>> def loss(params, x):
    ...     y, after = layer.apply(params, state, x, training(jax.random.key(2)))
    ...     return (y**2).mean() + moe_loss(after), after
    >>> grads, after = jax.grad(loss, has_aux=True)(params, jax.random.normal(jax.random.key(1), (3, 5, 8)))
    >>> round(float(after.load.sum()), 3), float(after.dropped)
    (1.0, 0.0)

    Raises:
      ValueError: `top_k` is not in 1 .. experts, a capacity factor that is not above 0, another `choice`; an x or mask
        of another shape.
      TypeError: x is not floating point, or not of the weights' dtype.

    References: those of `functional.moe`; Jiang et al., Mixtral of experts, 2024, arXiv:2401.04088.
    """

    d: int
    hidden: int
    experts: int
    top_k: int = 2
    capacity_factor: float | None = None
    gated: bool = True
    renormalize: bool | None = None
    activation: Pure[Any] = Silu()
    w_init: Initializer = lecun_normal()
    choice: Literal["tokens", "experts"] = "tokens"

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise ValueError(f"{describe(self)}: expected top_k in 1 .. experts={self.experts}")
        if self.capacity_factor is not None and self.capacity_factor <= 0:
            raise ValueError(f"{describe(self)}: expected a capacity_factor above 0, or None to drop nothing")
        if self.choice not in ("tokens", "experts"):
            raise ValueError(f"{describe(self)}: expected choice to be 'tokens' or 'experts'")
        if self.choice == "experts" and self.renormalize:
            raise ValueError(f"{describe(self)}: weights are renormalized where tokens choose; leave renormalize=None")

    def init(self, key: Any) -> Any:
        def draw(name: str, d_in: int, d_out: int, *lead: int) -> dict[str, Array]:
            return {"w": self.w_init(fold_name(fold_name(key, name), "w"), (*lead, d_in, d_out), fans=(d_in, d_out))}

        inward = {name: draw(name, self.d, self.hidden, self.experts) for name in self._inward}
        router, down = draw("router", self.d, self.experts), draw("down", self.hidden, self.d, self.experts)
        activation = self.activation.init(fold_name(key, "activation"))
        return {"router": router, **inward, "down": down, "activation": activation}

    @property
    def _inward(self) -> tuple[str, ...]:
        return ("gate", "up") if self.gated else ("up",)

    def init_state(self) -> RouterStats:
        zero = jnp.zeros((), jnp.float32)
        return RouterStats(zero, zero, jnp.zeros(self.experts, jnp.float32), zero)

    def capacity(self, tokens: int) -> int | None:
        """How many of `tokens` tokens an expert takes; None for all."""
        if self.capacity_factor is None and self.choice == "tokens":
            return None
        factor = 1.0 if self.capacity_factor is None else self.capacity_factor
        return min(tokens, math.ceil(factor * self.top_k * tokens / self.experts))

    def apply(
        self, params: Any, state: RouterStats | None, x: Array, mode: Mode, *, mask: Array | None = None
    ) -> tuple[Float[Array, "*lead {self.d}"], RouterStats | None]:
        check_axis(self, x, -1, self.d, f"d={self.d}")
        check_float(self, x, params["down"]["w"])
        if mask is not None and mask.shape != x.shape[:-1]:
            raise ValueError(
                f"{describe(self)} got a mask of shape {mask.shape} for x of shape {x.shape}: expected {x.shape[:-1]}"
            )
        tokens = x.reshape(-1, self.d)
        wide = wide_dtype(x.dtype)
        if mask is not None:  # before the router, whose gradient would be NaN where a token is
            mask = mask.reshape(-1)
            tokens = jnp.where(mask[:, None], tokens, jnp.zeros((), x.dtype))
        logits = functional.linear(tokens.astype(wide), params["router"]["w"].astype(wide))

        def expert(x: Array, dot: Any) -> Array:
            h = self.activation(params["activation"], dot(x, params[self._inward[0]]["w"]))
            return dot(h * dot(x, params["up"]["w"]) if self.gated else h, params["down"]["w"])

        room = self.capacity(tokens.shape[0])
        if self.choice == "experts" and room is not None:
            y, stats = functional.expert_choice(tokens, logits, expert, room, mask=mask)
        else:
            y, stats = functional.moe(
                tokens, logits, expert, self.top_k, capacity=room, renormalize=self.renormalize, mask=mask
            )
        if state is None:  # inside of a layer that keeps no state
            return y.reshape(x.shape), None
        return y.reshape(x.shape), jax.tree.map(lambda old, new: new.astype(old.dtype), state, stats)


def moe_loss(state: Any, balance: float | Array = 0.01, z: float | Array = 0.001) -> Float[Array, ""]:
    """`sum over all MoE layers in a state of balance * stats.balance + z * stats.z`: add it to the loss.

    The state is the one that `apply` returned inside of the differentiated function, of a layer or a model; the blocks
    of a `Stack` are counted one by one. The weights are those of the papers (Switch 0.01, ST-MoE 0.001). With `top_k`
    choices, `balance` is 1 for balanced experts; in Hugging Face's Mixtral it is `top_k`, and the mean over layers.

    >>> from dlkit.nn import Stack
    >>> moe_loss(Stack(MoE(4, 8, experts=2), 3).init_state())
    Array(0., dtype=float32)

    Raises:
      ValueError: there is no MoE layer in the state.
    """
    held = jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, RouterStats))
    found = [stats for stats in held if isinstance(stats, RouterStats)]
    if not found:
        raise ValueError("moe_loss found no RouterStats in the state: pass the state that the model's apply returned")
    total = sum(jnp.sum(balance * stats.balance + z * stats.z) for stats in found)
    return jnp.asarray(total)
