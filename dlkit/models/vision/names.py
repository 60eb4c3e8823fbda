"""What other libraries call the layers of a model: from our paths to the names of torch's modules."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from dlkit import nn

__all__ = ["named", "parametric"]

Rule = str | Callable[..., str]


def parametric(layer: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The layers that hold arrays of their own, by path, in order. Attention counts as one, as in torch."""
    children = {} if isinstance(layer, nn.MultiHeadAttention) else layer.children()
    if not children:
        if jax.tree.leaves(jax.eval_shape(lambda: (layer.init(jax.random.key(0)), layer.init_state()))):
            yield path, layer
        return
    for name, child in children.items():
        yield from parametric(child, "/".join(part for part in (path, name) if part))


def named(model: Any, rules: Mapping[str, Rule]) -> dict[str, str]:
    """The name of torch's module for each layer of `parametric(model)`, with "/" in front: counted from the root.

    Args:
      rules: by a regular expression for the whole path, tried in order, the name: a function of the groups, or a text
        in which `{0}`, `{1}`, ... are the groups and `{a}`, `{b}`, ... the same less one, as ours count from 1.

    Raises:
      ValueError: no rule fits a path.
    """
    found: dict[str, str] = {}
    for path, _ in parametric(model):
        for pattern, rule in rules.items():
            if match := re.fullmatch(pattern, path):
                groups = match.groups()
                less = {chr(97 + i): int(g) - 1 for i, g in enumerate(groups) if g and g.isdigit()}
                found[path] = "/" + (rule.format(*groups, **less) if isinstance(rule, str) else rule(*groups))
                break
        else:
            raise ValueError(f"there is no name in torchvision for the layer {path!r}: is the model one of its family?")
    return found
