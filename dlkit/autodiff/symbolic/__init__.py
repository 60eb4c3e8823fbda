"""From JAX to SymPy and back: formulas of functions and of their derivatives."""

from dlkit.autodiff.symbolic.expressions import Symbolic, symbolic, symbolic_grad
from dlkit.autodiff.symbolic.to_jax import from_sympy

__all__ = ["Symbolic", "from_sympy", "symbolic", "symbolic_grad"]
