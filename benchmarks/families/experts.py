"""A dropless mixture of 8 gated experts, 2 a token. The JAX libraries here have none: the obvious form, instead."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional as F

from dlkit import nn
from families.case import Case, array, fill, jax_run, torch_run, weight

D, HIDDEN, EXPERTS, TOP = 256, 512, 8, 2
TOKENS = (8, 256)


def cases() -> Iterator[Case]:
    x = array(*TOKENS, D)
    layer = nn.MoE(D, HIDDEN, EXPERTS, TOP)
    inward = {name: np.stack([weight(D, HIDDEN, seed=10 * s + e) for e in range(EXPERTS)]) for s, name in _INWARD}
    down = np.stack([weight(HIDDEN, D, seed=50 + e) for e in range(EXPERTS)])
    w = {"router": weight(D, EXPERTS, seed=99), **inward, "down": down}
    params = {name: {"w": values} for name, values in w.items()} | {"activation": {}}
    yield Case(
        f"Mixture of {EXPERTS} experts of {HIDDEN}, {TOP} a token, x {list(x.shape)}",
        {
            "dlkit": lambda: jax_run(
                lambda params, x: layer.apply(params, layer.init_state(), x, nn.EVAL)[0], params, x
            ),
            "every expert on every token": lambda: jax_run(_dense, w, x),
            "torch, a loop over experts": lambda: torch_run(_Experts(w), x),
        },
    )


_INWARD = ((1, "gate"), (2, "up"))


def _dense(w: Any, x: Any) -> Any:
    p, chosen = jax.lax.top_k(jax.nn.softmax(x @ w["router"]), TOP)
    p = p / p.sum(-1, keepdims=True)
    share = jnp.sum(jax.nn.one_hot(chosen, EXPERTS) * p[..., None], axis=-2)
    h = jax.nn.silu(jnp.einsum("btd,edh->beth", x, w["gate"])) * jnp.einsum("btd,edh->beth", x, w["up"])
    return jnp.einsum("beth,ehd,bte->btd", h, w["down"], share)


class _Experts(torch.nn.Module):
    """As model code writes it: gather each expert's tokens, compute, add them back."""

    def __init__(self, w: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.w = torch.nn.ParameterDict({k: torch.nn.Parameter(torch.zeros(v.shape)) for k, v in w.items()})
        for name, values in w.items():
            fill(self.w[name], values)

    def forward(self, x: Any) -> Any:
        tokens = x.reshape(-1, D)
        p, chosen = torch.topk(torch.softmax(tokens @ self.w["router"], -1), TOP)
        p = p / p.sum(-1, keepdim=True)
        y = torch.zeros_like(tokens)
        for e in range(EXPERTS):
            rows, which = torch.where(chosen == e)
            own = tokens[rows]
            h = F.silu(own @ self.w["gate"][e]) * (own @ self.w["up"][e])
            y = y.index_add(0, rows, (h @ self.w["down"][e]) * p[rows, which, None])
        return y.reshape(x.shape)
