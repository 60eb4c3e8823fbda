"""Complex parameters: optax's steps where it has them, and a plain word where there are none."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from certificates import rows
from optimizer_rows import RECIPES

from dlkit import tree

_rng = np.random.default_rng(0)


def draw():
    """A complex matrix, and a real vector beside it."""
    z = _rng.standard_normal((3, 2)) + 1j * _rng.standard_normal((3, 2))
    return {"a": {"w": z}, "r": {"w": _rng.standard_normal(3)}}


PARAMS, TARGET = draw(), draw()

# Where optax refuses complex parameters or fails, or multiplies g by g in the place of its conjugate.
OPTAX_HAS_NOT = {"adadelta", "dadapt_adamw", "momo_adam", "prodigy", "scale_by_distance_over_gradients"}
OPTAX_HAS_NOT |= {"adopt", "galore", "madgrad", "mechanize", "momo", "multi_steps", "rprop", "simplified_ademamix"}
OPTAX_HAS_NOT |= {"sm3", "sophia"}


def alike():
    """The first certificate against optax of every optimizer whose masks fit these parameters."""
    found = {}
    for case in rows.CASES:
        name = case.name.split("(")[0]
        plain = "mask=" not in case.name and "dimension" not in case.name and not case.value and not case.functions
        if case.optax and "optax" not in case.differs and name not in OPTAX_HAS_NOT and plain:
            found.setdefault(name, case)
    return found


ALIKE = alike()
FIRST = ("adan", "lion", "muon", "yogi")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FIRST else pytest.mark.thorough) for n in ALIKE])
def test_complex_steps_equal_optax(name, x64):
    """Three steps on sum |z - c|^2 + |z - c|^4 / 10, to 1e-12."""

    def gradient(p):
        def rise(z, c):
            d = z - c
            return (2 + 0.4 * jnp.abs(d) ** 2) * d

        return jax.tree.map(rise, p, TARGET)

    def run(tx):
        def steps(p):
            state = tx.init(p)
            for _ in range(3):  # not a scan: optax's states may change from real to complex
                updates, state = tx.update(gradient(p), state, p)
                p = jax.tree.map(jnp.add, p, updates)
            return p

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return jax.jit(steps)(start)

    start = jax.tree.map(jnp.asarray, PARAMS)
    case = ALIKE[name]
    ours, theirs = run(case.ours), run(case.optax())
    assert jax.tree.map(lambda leaf: leaf.dtype, ours) == jax.tree.map(lambda leaf: leaf.dtype, start)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_complex_parameters_are_taken_or_refused_by_name(name):
    """Complex updates of complex parameters, real ones beside them; or an error that says so."""
    transform, extra = RECIPES[name][0], dict(*RECIPES[name][2:])
    params = {"w": jnp.ones((2, 2), jnp.complex64), "r": jnp.ones(2)}
    try:
        state = jax.eval_shape(transform.init, params)
        updates, after = jax.eval_shape(lambda p, s: transform.update(p, s, p, **extra), params, state)
    except (TypeError, ValueError) as error:
        said, strict = str(error), isinstance(error, jax.dtypes.TypePromotionError)
    else:
        assert (updates["w"].dtype, updates["r"].dtype) == (jnp.complex64, jnp.float32)
        assert not tree.diff(state, after)
        return
    assert not strict
    assert re.search(r"real|complex (parameters|value)|imaginary part", said), said
