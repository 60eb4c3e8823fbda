"""Scalars that the rules of Adam's family share: bias corrections, computed once for all leaves."""

from typing import Any

from jaxtyping import Array, Float, Int

from dlkit.optim.hyper import bias_correction, safe_increment

__all__: list[str] = []


def ahead_factors(b1: Any, count: Int[Array, ""], nesterov: bool) -> tuple[Float[Array, ""], Float[Array, ""] | None]:
    """The factors of mu and of g in the corrected average of gradients, where `count` of them are in mu.

    mu / (1 - b1^t), or with Nesterov's look-ahead b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t).
    """
    total = bias_correction(b1, count)
    if not nesterov:
        return 1 / total, None
    return b1 / bias_correction(b1, safe_increment(count)), (1 - b1) / total


def weigh(mu: Any, g: Any, of_mu: Any, of_g: Any) -> Any:
    """of_mu mu + of_g g, in the dtype of the leaf."""
    ahead = of_mu.astype(mu.dtype) * mu
    return ahead if of_g is None else ahead + of_g.astype(g.dtype) * g
