"""Mixed precision: in which dtypes a model keeps its parameters, computes, and answers."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dlkit.nn import Layer, Mode

__all__ = ["Policy", "plain"]

FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Policy:
    """The dtypes of a model: `policy(model)` is the model that keeps them.

    | field | what has this dtype |
    |---|---|
    | `param` | parameters, and so their gradients, the optimizer's slots and its updates |
    | `compute` | parameters and inputs as the layers see them, and so activations |
    | `output` | outputs, and so the loss and the metrics |

    Parameters are cast inside the differentiated function: a gradient of float32 parameters is a float32 number, the
    sum over the batch having been taken in `compute`. Integers are cast nowhere. What the model remembers keeps its own
    dtype: the statistics of a `BatchNorm` stay float32. Sums inside norms, softmax and losses are taken in float32 in
    any policy.

    float16 has no exponents below 2^-24: its gradients need `optim.dynamic_loss_scale`. bfloat16 needs none. Parameters
    of their own in bfloat16 lose small updates (an update below 2^-9 of the parameter is rounded away), so `param` is
    float32 unless memory says otherwise.

    Args:
      param, compute, output: "float16", "bfloat16", "float32" or "float64" (this one in JAX's 64-bit mode alone).

    Differences. jmp's `Policy` casts where you call it; here the model does, so evaluation, K-FAC and checkpoints see
    the same model. torch's autocast picks a dtype for each operation.

    Reference: Micikevicius et al., Mixed precision training, 2018, arXiv:1710.03740.

    >>> from dlkit import nn
    >>> model = Policy(compute="bfloat16")(nn.Linear(3, 2))
    >>> params = model.init(jax.random.key(0))
    >>> y, _ = model.apply(params, None, jnp.ones((1, 3)), nn.EVAL)
    >>> params["w"].dtype.name, y.dtype.name
    ('float32', 'float32')

    Raises:
      ValueError: a dtype that is none of these; from `policy(model)`, float64 without JAX's 64-bit mode.
      TypeError: from `policy(model)`, what is no layer.
    """

    param: str = "float32"
    compute: str = "float32"
    output: str = "float32"

    def __post_init__(self) -> None:
        for name in ("param", "compute", "output"):
            if getattr(self, name) not in FLOATS:
                raise ValueError(f"Policy: {name} is {getattr(self, name)!r}, wanted one of {', '.join(FLOATS)}")

    def __call__(self, model: Layer[Any, Any]) -> Layer[Any, Any]:
        """The model with parameters, activations and outputs in these dtypes; paths and names stay as they are."""
        if not isinstance(model, Layer):
            raise TypeError(f"Policy: expected a model, a dlkit layer, got {model!r}")
        wide = [name for name in ("param", "compute", "output") if getattr(self, name) == "float64"]
        if wide and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(f"Policy: {wide[0]} is float64, which needs jax.config.update('jax_enable_x64', True)")
        return _InPrecision(model, self)

    @property
    def scales_loss(self) -> bool:
        """Whether gradients pass through float16, and so need `optim.dynamic_loss_scale`."""
        return "float16" in (self.param, self.compute, self.output)


def plain(model: Layer[Any, Any], params: Any) -> tuple[Layer[Any, Any], Any]:
    """The model that a policy was put around, with its parameters in float32; as they are where there is no policy.

    For what must know the model's own class, such as how a VAE decodes.
    """
    return (model.layer, _cast(params, "float32")) if isinstance(model, _InPrecision) else (model, params)


@dataclass(frozen=True)
class _InPrecision(Layer[Any, Any]):
    """A layer whose parameters, inputs and outputs are cast as the policy says."""

    layer: Layer[Any, Any]
    policy: Policy

    def children(self) -> dict[str, Layer]:
        return {"": self.layer}  # the same paths as those of the layer itself

    def init(self, key: Any) -> Any:
        return _cast(self.layer.init(key), self.policy.param)

    def init_state(self) -> Any:
        return self.layer.init_state()

    def init_cache(self, batch: int, length: int, dtype: Any = None) -> Any:
        return self.layer.init_cache(batch, length, self.policy.compute if dtype is None else dtype)

    def apply(self, params: Any, state: Any, x: Any, mode: Mode, **inputs: Any) -> tuple[Any, Any]:
        params, x, inputs = (_cast(of, self.policy.compute) for of in (params, x, inputs))
        y, state = self.layer.apply(params, state, x, mode, **inputs)
        return _cast(y, self.policy.output), state


def _cast(of: Any, dtype: str) -> Any:
    def one(leaf: Any) -> Any:
        held = jnp.result_type(leaf)
        floating = (
            jnp.issubdtype(held, jnp.floating) and jnp.finfo(held).bits > 8
        )  # a narrower one is a code, not a number
        return jnp.asarray(leaf, dtype) if floating else leaf

    return jax.tree.map(one, of)
