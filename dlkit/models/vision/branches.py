"""Several ways through a network side by side, and heads in the middle of one."""

from dataclasses import dataclass
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp
from jaxtyping import Array, Float

from dlkit import nn
from dlkit.nn import Mode, child_state

__all__ = ["AuxHeads", "Branches"]


@dataclass(frozen=True)
class Branches(nn.Layer[Any, Any]):
    """`y = [branch1(x), branch2(x), ...]`, side by side on the last axis: x `[..., c_in]`, y `[..., c_1 + c_2 + ...]`.

    The branches give equal shapes but for the last axis. With `nn.Identity()` as the first, x itself is kept beside
    what is new, as in DenseNet and U-Net. Parameters: `branch1`, `branch2`, ...

    >>> layer = Branches(nn.Identity(), nn.Linear(3, 5))
    >>> layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((2, 3)), nn.EVAL)[0].shape
    (2, 8)

    Raises:
      ValueError: the branches give shapes that differ in more than the last axis.
    """

    branch1: nn.Layer
    branch2: nn.Layer
    branch3: nn.Layer | None = None
    branch4: nn.Layer | None = None

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Float[Array, "*lead c"], Any]:
        outputs, remembered = [], {}
        for name, branch in self.children().items():
            y, after = branch.apply(params[name], child_state(state, name), x, mode.at(name))
            outputs.append(y)
            if after is not None:
                remembered[name] = after
        shapes = [y.shape for y in outputs]
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(f"Branches stand side by side on the last axis, but have the shapes {shapes}")
        return jnp.concatenate(outputs, axis=-1), remembered or None


@dataclass(frozen=True)
class AuxHeads(nn.Layer[Any, Any]):
    """A network in pieces, with a head behind each piece but the last that only training uses.

    In training y is a tuple: the output of the last piece, then those of the heads, in order; the loss is a
    `losses.AuxLoss`. In evaluation it is the output of the last piece, and the heads are not computed. Parameters:
    `body/0`, `body/1`, ... and `aux/0`, ...

    >>> model = AuxHeads((nn.Linear(3, 4), nn.Linear(4, 2)), (nn.Linear(4, 2),))
    >>> params = model.init(jax.random.key(0))
    >>> [y.shape for y in model.apply(params, None, jnp.ones((5, 3)), nn.training(None))[0]]
    [(5, 2), (5, 2)]
    >>> model.apply(params, None, jnp.ones((5, 3)), nn.EVAL)[0].shape
    (5, 2)

    Raises:
      ValueError: there is not one head fewer than pieces.
    """

    body: tuple[nn.Layer, ...]
    aux: tuple[nn.Layer, ...]

    def __post_init__(self) -> None:
        if len(self.aux) + 1 != len(self.body):
            raise ValueError(
                f"AuxHeads wants a head behind each piece but the last: {len(self.body)} pieces want "
                f"{len(self.body) - 1} heads, got {len(self.aux)}"
            )

    def apply(self, params: Any, state: Any, x: Any, mode: Mode) -> tuple[Any, Any]:
        after: dict[str, list[Any]] = {"body": [], "aux": []}
        aside = []

        def run(kind: str, i: int, x: Any) -> Any:
            held = child_state(state, kind)
            held = None if held is None else held[i]
            y, new = getattr(self, kind)[i].apply(params[kind][i], held, x, mode.at(f"{kind}/{i}"))
            after[kind].append(new)
            return y

        for i in range(len(self.body)):
            x = run("body", i, x)
            if i < len(self.aux) and mode.train:
                aside.append(run("aux", i, x))
        if not mode.train:
            after["aux"] = list(child_state(state, "aux") or ())
        remembered = {k: tuple(v) for k, v in after.items() if any(new is not None for new in v)}
        return ((x, *aside) if mode.train else x), remembered or None
