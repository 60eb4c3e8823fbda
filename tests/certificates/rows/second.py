"""L-BFGS and line searches: optax alone has them in a form that takes gradients from outside.

torch's `LBFGS.step` takes a closure and makes 20 iterations: `tests/optim/test_second_order.py` compares with it.
"""

import optax

from certificates.case import Case
from dlkit import optim

# In float32 a search interpolates between losses that agree in most of their digits, so a step has fewer digits than a
# gradient; a backtracking search multiplies its step by 1.5 and 0.8 again and again, and each product is rounded.
SEARCHED = 1e-5

CASES = [
    Case("lbfgs()", optim.lbfgs(), optax.lbfgs, value=True, tolerance32=SEARCHED),
    Case(
        "lbfgs(0.2, memory_size=3, scale_init_precond=False, linesearch=None)",
        optim.lbfgs(0.2, 3, False, None),
        lambda: optax.lbfgs(0.2, 3, False, None),
        value=True,
    ),
    Case(
        "chain(sgd(1.0), scale_by_zoom_linesearch(15))",
        optim.chain(optim.sgd(1.0), optim.scale_by_zoom_linesearch(15)),
        lambda: optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(15)),
        value=True,
        tolerance32=SEARCHED,
    ),
    Case(
        "chain(sgd(1.0), scale_by_backtracking_linesearch(15))",
        optim.chain(optim.sgd(1.0), optim.scale_by_backtracking_linesearch(15)),
        lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)),
        value=True,
        tolerance32=SEARCHED,
    ),
]
