"""What the recipes share: activations and norms by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dlkit import nn
from dlkit.nn import initializers

__all__ = ["ACTIVATIONS", "activation", "hidden_weights", "norm"]

ACTIVATIONS: Mapping[str, Callable[[], nn.Layer[Any, Any]]] = MappingProxyType(
    {
        "relu": nn.Relu,
        "gelu": nn.Gelu,
        "silu": nn.Silu,
        "elu": nn.Elu,
        "selu": nn.Selu,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "leaky_relu": nn.LeakyRelu,
        "softplus": nn.Softplus,
        "mish": nn.Mish,
    }
)
NORMS: Mapping[str, Callable[[int], nn.Layer[Any, Any]]] = MappingProxyType(
    {"batch": nn.BatchNorm, "layer": nn.LayerNorm}
)


def activation(name: str) -> nn.Layer[Any, Any]:
    """The activation layer called `name`.

    Raises:
      ValueError: there is none of this name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"there is no activation {name!r}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def hidden_weights(activation: str) -> Any:
    """The initializer before an activation: He's factor 2 where half of the signal is cut off, else 1."""
    cuts = activation in ("relu", "leaky_relu", "gelu", "silu", "mish")
    return initializers.he_normal() if cuts else initializers.lecun_normal()


def norm(name: str | None, d: int) -> list[nn.Layer[Any, Any]]:
    """The norm called `name` over `d` channels, in a list; an empty list for None.

    Raises:
      ValueError: there is none of this name.
    """
    if name is None:
        return []
    if name not in NORMS:
        raise ValueError(f"there is no norm {name!r}: expected one of {', '.join(NORMS)}, or None")
    return [NORMS[name](d)]
