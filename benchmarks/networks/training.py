"""One training step of any library's model: a loss, an optimizer, one compiled and donated step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from families.case import fill
from timing import Trainer

__all__ = ["jax_trainer", "linear", "token_loss", "torch_trainer"]


def jax_trainer(loss: Callable[..., Any], params: Any, batch: tuple[np.ndarray, ...], tx: Any) -> Trainer:
    """`loss(params, *batch)` is a number; modules of other libraries come split into arrays and a definition."""
    params = jax.tree.map(jnp.array, params)
    placed = tuple(jnp.asarray(a) for a in batch)
    count = sum(a.size for a in jax.tree.leaves(params))

    def step(params: Any, opt_state: Any, *batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, *batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (jax.tree.map(lambda p, u: p + u, params, updates), opt_state), value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    carry = [(params, tx.init(params))]

    def run() -> Any:
        carry[0], value = compiled(*carry[0], *placed)
        return value

    return Trainer(run, lambda: jax.block_until_ready(carry[0]), count)


def torch_trainer(
    model: Any,
    loss: Callable[..., Any],
    batch: tuple[np.ndarray, ...],
    optimizer: Callable[[Any], Any],
    clip: float | None = None,
    compiled: bool = False,
) -> Trainer:
    """`loss(model, *batch)`; `optimizer` is made from the parameters."""
    placed = tuple(torch.tensor(a.astype(np.int64) if a.dtype.kind == "i" else a) for a in batch)
    made = optimizer(model.parameters())
    forward = torch.compile(loss) if compiled else loss

    def run() -> Any:
        made.zero_grad(set_to_none=True)
        value = forward(model, *placed)
        value.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        made.step()
        return value.detach()

    return Trainer(run, lambda: None, sum(p.numel() for p in model.parameters() if p.requires_grad))


def token_loss(logits: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """The mean cross-entropy of `logits(params, x)`, written the obvious way."""

    def loss(params: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()

    return loss


def linear(w: np.ndarray, bias: bool = True) -> torch.nn.Linear:
    """torch's, with this matrix `[d_in, d_out]` and a bias of zeros."""
    layer = torch.nn.Linear(*w.shape, bias=bias)
    fill(layer.weight, w.T)
    if bias:
        torch.nn.init.zeros_(layer.bias)
    return layer
