"""Keras's Muon: matrices by Muon, everything else by AdamW."""

import re
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from dlkit import tree
from dlkit.optim.gradients.decay import decay_links
from dlkit.optim.hyper import Scalar, ScalarOrSchedule, as_float
from dlkit.optim.keras.base import base
from dlkit.optim.rules.adam import scale_by_adam
from dlkit.optim.rules.momentum import trace
from dlkit.optim.scaling import scale, scale_by_learning_rate
from dlkit.optim.torch.orthogonal import NewtonSchulz
from dlkit.optim.transform import Chain, chain
from dlkit.optim.wrappers.masks import Mask, masked, resolve_mask, settle_mask

__all__ = ["ByMuon", "muon"]


@dataclass(frozen=True)
class ByMuon:
    """The mask of the parameters that `muon` gives to Muon: matrices, without embeddings and what is excluded.

    >>> ByMuon()({"embed": {"table": jnp.ones((2, 2))}, "head": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}})
    {'embed': {'table': False}, 'head': {'b': False, 'w': True}}
    """

    exclude_layers: tuple[str, ...] = ()
    exclude_embeddings: bool = True
    others: bool = False  # the opposite: what is left to AdamW

    def __call__(self, params: Any) -> Any:
        return tree.map_with_path(lambda path, p: self._chosen(path, p) != self.others, params)

    def _chosen(self, path: str, p: Any) -> bool:
        embedding = "embedding" in path.lower() or path.split("/")[-1] == "table"
        if jnp.ndim(p) != 2 or (self.exclude_embeddings and embedding):
            return False
        return not any(re.search(pattern, path) for pattern in self.exclude_layers)


@dataclass(frozen=True)
class Both:
    """The mask of what two masks choose, the first in any form."""

    first: Any
    second: ByMuon

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", settle_mask("muon", self.first))

    def __call__(self, params: Any) -> Any:
        return jax.tree.map(lambda a, b: a and b, resolve_mask(self.first, params), self.second(params))


def muon(
    learning_rate: ScalarOrSchedule = 0.001,
    adam_beta_1: Scalar = 0.9,
    adam_beta_2: Scalar = 0.999,
    adam_weight_decay: Scalar | None = 0.004,
    epsilon: Scalar = 1e-7,
    weight_decay: Scalar | None = 0.004,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    exclude_layers: tuple[str, ...] | list[str] = (),
    exclude_embeddings: bool = True,
    muon_a: Scalar = 3.4445,
    muon_b: Scalar = -4.7750,
    muon_c: Scalar = 2.0315,
    adam_lr_ratio: Scalar = 1.0,
    momentum: Scalar = 0.95,
    ns_steps: int = 5,
    nesterov: bool = True,
    rms_rate: Scalar | None = 0.2,
    *,
    mask: Mask = None,
) -> Chain:
    """keras.optimizers.Muon: Newton-Schulz steps for matrices, `adamw` for vectors, embeddings and what is excluded.

        v = momentum v + g                           with nesterov, momentum v + g stands for v below
        X = v / (|v| + 1e-7)                         then ns_steps times:  X = a X + (b X X' + c (X X')^2) X
        p = p - learning_rate (weight_decay p + rms_rate sqrt(max(rows, columns)) X)

    The iteration runs in the dtype of the gradients (torch's in bfloat16).

    Args:
      learning_rate: a number, or a schedule.
      adam_beta_1, adam_beta_2, epsilon: of the AdamW for the other parameters, see `adamw`.
      adam_weight_decay: theirs; at the pace of `learning_rate`.
      adam_lr_ratio: their rate over `learning_rate`.
      weight_decay: of the matrices, decoupled.
      exclude_layers: patterns of paths (`re.search`) of matrices to leave to AdamW.
      exclude_embeddings: whether paths with "embedding" in them, and those that end in `table`, are left to AdamW.
      muon_a, muon_b, muon_c, ns_steps: of the iteration.
      momentum: the weight of the old velocity.
      nesterov: whether it looks ahead.
      rms_rate: the size of an element of the step, about; None for X alone.
      clipnorm, clipvalue, global_clipnorm, mask: see `optim.keras`.

    Differences. Keras also takes embeddings by name alone; dlkit's are called `table`.

    References: see `optim.torch.muon`. Liu et al., "Muon is scalable for LLM training", 2025.

    >>> import jax
    >>> from dlkit import optim
    >>> loss = lambda p: jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2)
    >>> params = {"w": jnp.array([[1.0, 2.0], [-3.0, 0.5]]), "b": jnp.ones(2)}
    >>> tx = muon(0.5, rms_rate=None)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
    ...     params = optim.apply_updates(params, updates)
    ...     print(f"{loss(params):.3f}")
    10.253
    6.112
    3.537

    Raises:
      ValueError: an argument out of range, or two of the clipping arguments.
    """
    shared = base("muon", None, clipnorm, clipvalue, global_clipnorm, mask)
    by_muon = ByMuon(tuple(exclude_layers), exclude_embeddings)
    by_adam = replace(by_muon, others=True)
    rate = 0.2 if rms_rate is None else rms_rate
    factor = None if rms_rate is None else "rms"
    velocity = trace(as_float("muon", "momentum", momentum), nesterov)
    iteration = NewtonSchulz((muon_a, muon_b, muon_c), ns_steps, 1e-7, factor, rate, eps_added=True)
    adam = scale_by_adam(adam_beta_1, adam_beta_2, epsilon, tf_style=True)
    decays = ((weight_decay, by_muon), (adam_weight_decay, by_adam))
    return chain(
        *shared.clips(),
        masked(chain(velocity, iteration), by_muon),
        masked(chain(adam, scale(adam_lr_ratio)), by_adam),
        *(link for decay, chosen in decays if decay is not None for link in decay_links(decay, Both(mask, chosen))),
        scale_by_learning_rate(learning_rate),
    )
