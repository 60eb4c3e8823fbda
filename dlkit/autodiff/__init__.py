"""Differentiation made visible: five ways to do it, graphs drawn and stepped through, checks that explain.

Everything here works on any JAX function. It knows nothing of layers, so it serves them like any other function.
"""

from dlkit.autodiff import minigrad
from dlkit.autodiff.causes import Finding
from dlkit.autodiff.checking import GradientReport, check_grads
from dlkit.autodiff.cost import ModeCosts, cost_curve, mode_costs
from dlkit.autodiff.drawing import Drawing, draw_graph
from dlkit.autodiff.evaluation import evaluate_adjoints, evaluate_graph, evaluate_tangents
from dlkit.autodiff.gradient_table import gradient_table
from dlkit.autodiff.graph import Graph, Operation, Variable, toposort
from dlkit.autodiff.jacobians import Derivative, hessian, jacobian
from dlkit.autodiff.manual import manual
from dlkit.autodiff.numerical import evaluations, finite_difference, optimal_step
from dlkit.autodiff.paths import Path, PathSum, sum_over_paths
from dlkit.autodiff.products import hvp, jvp, vjp
from dlkit.autodiff.residuals import Residual, Residuals, compare_remat, residuals
from dlkit.autodiff.steps import trace_adjoints, trace_tangents, trace_values
from dlkit.autodiff.sweep import StepSweep, step_sweep
from dlkit.autodiff.symbolic import Symbolic, from_sympy, symbolic, symbolic_grad
from dlkit.autodiff.table import Table
from dlkit.autodiff.tracing import trace_graph
from dlkit.autodiff.ways import FiveWays, five_ways

__all__ = [
    "Derivative",
    "Drawing",
    "Finding",
    "FiveWays",
    "GradientReport",
    "Graph",
    "ModeCosts",
    "Operation",
    "Path",
    "PathSum",
    "Residual",
    "Residuals",
    "StepSweep",
    "Symbolic",
    "Table",
    "Variable",
    "check_grads",
    "compare_remat",
    "cost_curve",
    "draw_graph",
    "evaluate_adjoints",
    "evaluate_graph",
    "evaluate_tangents",
    "evaluations",
    "finite_difference",
    "five_ways",
    "from_sympy",
    "gradient_table",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "manual",
    "minigrad",
    "mode_costs",
    "optimal_step",
    "residuals",
    "step_sweep",
    "sum_over_paths",
    "symbolic",
    "symbolic_grad",
    "toposort",
    "trace_adjoints",
    "trace_graph",
    "trace_tangents",
    "trace_values",
    "vjp",
]
