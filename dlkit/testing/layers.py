"""`check_layer`: the properties that every layer of dlkit has, for yours too.

    def test_my_layer():
        check_layer(MyLayer(d=8), x=jax.random.normal(jax.random.key(0), (4, 8)))

Each property is one function below, by name in `PROPERTIES`; a failure lists every property that does not hold and what
was seen. The table of all layers x all properties in dlkit's own tests is built from the same functions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from dlkit.nn import Layer
from dlkit.testing import properties, randomness
from dlkit.testing.case import Case

__all__ = ["PROPERTIES", "check_layer"]

PROPERTIES: dict[str, Callable[[Case], None]] = {
    "value": properties.is_a_value,
    "init": properties.init_is_deterministic,
    "strong types": properties.strongly_typed,
    "fresh scale": properties.fresh_scale,
    "jit": properties.jit_equals_eager,
    "vmap": properties.vmap_equals_loop,
    "state type": properties.state_keeps_its_type,
    "scan": properties.scans_over_steps,
    "traced once": properties.traced_once,
    "dtype": properties.keeps_dtype,
    "gradient": properties.gradient,
    "gradient reaches": properties.gradient_reaches_every_parameter,
    "remat": properties.remat_keeps_gradients,
    "keys": randomness.no_key_twice,
    "training draws": randomness.training_draws,
    "eval draws nothing": randomness.eval_draws_nothing,
    "training mean": randomness.training_mean_is_eval,
    "independence": properties.examples_are_independent,
}


def check_layer(
    layer: Layer,
    x: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    batched: bool = True,
    unbiased: bool | None = None,
    scale: tuple[float, float] = (0.1, 10.0),
    unused: Sequence[str] = (),
    skip: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> None:
    """Check the properties of `PROPERTIES` on `layer` with the input `x` (float32 or integer arrays).

    Args:
      layer: the layer; fresh parameters and state are made from it.
      x: an input, an array or a tree of arrays; the wider its last axis, the sharper the check of the initial scale.
      inputs: keyword arguments of `apply` beside `x`, arrays that are the same for every example.
      batched: axis 0 of `x` holds examples that do not see each other in evaluation.
      unbiased: the mean output over many training draws equals the evaluation output, as for dropout. By default true
        of a layer without children that draws random numbers.
      scale: bounds on the root mean square of the output, for fresh weights.
      unused: globs of parameters that the gradient does not reach by design.
      skip, only: names of properties to leave out, or the only ones to check.

    Raises:
      AssertionError: lists each property that fails and what was seen.
      ValueError: `skip` or `only` names no property.
    """
    if unknown := {*skip, *(only or ())} - PROPERTIES.keys():
        raise ValueError(f"no property is called {sorted(unknown)}; there are {', '.join(PROPERTIES)}")
    case = Case(layer, x, batched, unbiased, scale, tuple(unused), dict(inputs or {}))
    failures = []
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for name, holds in PROPERTIES.items():
            if name in skip or (only is not None and name not in only):
                continue
            try:
                holds(case)
            except Exception as error:
                notes = "".join(f" [{n}]" for n in getattr(error, "__notes__", ()) if n.startswith("in layer"))
                failures.append(f"{name}: {error}{notes}" if str(error) else f"{name}: {error!r}{notes}")
    assert not failures, f"{layer!r} fails {len(failures)} of the layer properties:\n" + "\n".join(failures)
