"""Looking into a model, and giving it another head, without writing it anew."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax  # noqa: F401  (the doctests)
import jax.numpy as jnp  # noqa: F401

from dlkit import nn, tree
from dlkit.nn import EVAL, Mode
from dlkit.nn.scope import listening

__all__ = ["features", "with_head"]


def features(
    model: nn.Layer[Any, Any],
    params: Any,
    state: Any,
    x: Any,
    at: str | Iterable[str],
    mode: Mode = EVAL,
    **inputs: Any,
) -> dict[str, Any]:
    """The outputs of the layers inside `model` whose paths match, by path, in the order in which they were computed.

    The model is run as it is, once; nothing is added to it, and under `jit` what nobody asked for costs nothing. The
    blocks of a `Stack` run one by one here, and share a path. A path that is run several times has a tuple of outputs.

    Args:
      model, params, state, x, mode: as in `model.apply(params, state, x, mode)`; `inputs` are its keywords.
      at: globs over the paths of layers, those of their parameters: "stage3", "stage*/block1", "**/relu".

    >>> model = nn.Chain(nn.Linear(3, 4), nn.Relu(), head=nn.Linear(4, 2))
    >>> found = features(model, model.init(jax.random.key(0)), None, jnp.ones((5, 3)), "*1")
    >>> {path: y.shape for path, y in found.items()}
    {'linear1': (5, 4), 'relu1': (5, 4)}

    Raises:
      ValueError: a glob matches no layer that was run; the message has the paths near it.
    """
    patterns = [at] if isinstance(at, str) else list(at)
    seen: dict[str, list[Any]] = {}
    paths: dict[str, int] = {}

    def hear(path: str, y: Any) -> None:
        if not path:
            return
        paths[path] = 0
        if any(tree.match({path: 0}, pattern, required=False)[path] for pattern in patterns):
            held = seen.setdefault(path, [])
            if not held or held[-1] is not y:  # a block and what it is made of are one layer
                held.append(y)

    with listening(hear):
        unrolled(model).apply(params, state, x, mode, **inputs)
    tree.match(paths, patterns)  # raises where a pattern matches nothing
    return {path: held[0] if len(held) == 1 else tuple(held) for path, held in seen.items()}


def unrolled(model: nn.Layer[Any, Any]) -> nn.Layer[Any, Any]:
    """The model whose stacks run their blocks one by one, so that what is in them can be seen from outside."""

    def replace(path: str, layer: nn.Layer) -> nn.Layer:
        return dataclasses.replace(layer, scan=False, remat="none") if isinstance(layer, nn.Stack) else layer

    return nn.map_layers(replace, model)


def with_head(
    model: nn.Layer[Any, Any], head: int | nn.Layer[Any, Any], at: str | Iterable[str] = "**/head"
) -> nn.Layer[Any, Any]:
    """The model with another last layer: for `head` classes, or the layer `head`.

    Args:
      model: a definition.
      head: a number puts `nn.Linear(d, head)` in the place of `nn.Linear(d, ...)`, and likewise for `nn.Conv`.
      at: globs over the paths of layers to replace; by default each that is called `head`, auxiliary ones too.

    >>> model = nn.Chain(nn.Linear(3, 4), nn.Relu(), head=nn.Linear(4, 2))
    >>> new = with_head(model, 7)
    >>> new["head"]
    Linear(d_in=4, d_out=7)
    >>> params = model.init(jax.random.key(0))
    >>> params = {**params, "head": new["head"].init(jax.random.key(1))}     # the rest stays

    Raises:
      ValueError: no layer has such a path.
      TypeError: a number is given, and the layer is neither `Linear` nor `Conv`.
    """
    patterns = [at] if isinstance(at, str) else list(at)
    paths: dict[str, int] = {}

    def replace(path: str, layer: nn.Layer) -> nn.Layer:
        if not path:
            return layer
        paths[path] = 0
        if not any(tree.match({path: 0}, pattern, required=False)[path] for pattern in patterns):
            return layer
        if isinstance(head, nn.Layer):
            return head
        if isinstance(layer, nn.Linear):
            return dataclasses.replace(layer, d_out=head)
        if isinstance(layer, nn.Conv):
            return dataclasses.replace(layer, c_out=head)
        raise TypeError(f"with_head: {path} is {layer!r}, not a Linear or Conv: give the layer itself as head")

    new = nn.map_layers(replace, model)
    tree.match(paths, patterns)
    return new
