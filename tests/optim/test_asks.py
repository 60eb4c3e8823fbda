"""What users ask of optimizers, as written: functions of the parameters anywhere, by name, and what decays.

Where the other asks are tested: 5 and 44 tests/train/test_accumulate.py; 13 tests/train/test_freeze.py; 15 here,
tests/config/test_optimizers.py and, beside torch and optax, the certificates; 20 tests/train/test_policy.py and
test_loss_scale.py; 22 test_schedule_tables.py, test_schedule_starts.py and test_schedules.py; 32 and 33 test_forms.py
and, beside torch at eps = 0.1 and 0.01, the certificates; 52 test_clipping.py; 59 test_line_search.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import training as problem

from dlkit import losses, nn, optim, train, tree

PARAMS = {"head": {"w": jnp.array([1.0, -2.0])}, "body": {"w": jnp.array([0.5])}}
MATRIX = np.array([[3.0, 1.0, 0.5], [1.0, 2.0, 0.2], [0.5, 0.2, 1.0]], np.float32)  # body/w, then head/w


def loss(p):
    v = jnp.concatenate([p["body"]["w"], p["head"]["w"]]) - jnp.array([1.0, 2.0, 3.0])
    return v @ jnp.asarray(MATRIX) @ v / 2


WRAPPED = {
    "masked": lambda tx: optim.chain(optim.masked(tx, "head/**"), optim.freeze("body/**")),
    "partition": lambda tx: optim.partition({"head/**": tx, "**": optim.set_to_zero()}),
    "selective": lambda tx: optim.selective_transform(tx, freeze_mask="body/**"),
    "within each other": lambda tx: optim.partition({"**": optim.selective_transform(tx, freeze_mask="body/**")}),
}


@pytest.mark.parametrize(
    ("make", "wrap"),
    [
        *((optim.newton, wrap) for wrap in WRAPPED),
        (optim.lbfgs, "within each other"),
        (optim.damped_newton, "within each other"),
    ],
)
def test_a_part_of_the_parameters_is_minimized_alone(make, wrap):
    """The minimum of a quadratic form over the head, the body standing still: c_h - H_hh^-1 H_hb (b - c_b)."""
    p = minimized(WRAPPED[wrap](make()), loss, PARAMS, 12)
    np.testing.assert_array_equal(p["body"]["w"], PARAMS["body"]["w"])
    expected = np.array([2.0, 3.0]) - np.linalg.solve(MATRIX[1:, 1:], MATRIX[1:, 0] * (0.5 - 1.0))
    np.testing.assert_allclose(p["head"]["w"], expected, rtol=2e-4)  # float32, condition 2; damping of damped_newton


def minimized(tx, loss, p, steps):
    """The parameters after so many steps, the gradient as `update` wants it: uphill for complex parameters too."""

    def step(carry, _):
        p, state = carry
        value, grads = jax.value_and_grad(loss)(p)
        uphill = jax.tree.map(jnp.conj, grads)
        updates, state = tx.update(uphill, state, p, value=value, grad=grads, value_fn=loss)
        return (optim.apply_updates(p, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps)[0][0])(p)


def test_flattened():
    """One vector, whose one Newton step ends at the minimum."""
    p = minimized(optim.flatten(optim.newton()), loss, PARAMS, 1)
    np.testing.assert_allclose(jnp.concatenate([p["body"]["w"], p["head"]["w"]]), [1.0, 2.0, 3.0], rtol=1e-5)


def test_a_complex_parameter_in_two_parts_is_searched_along():
    """|z - c|^2: the search along the two parts, which needs value_fn of them, finds c."""
    tx, c = optim.split_real_and_imaginary(optim.lbfgs()), 1.0 + 2.0j
    z = minimized(tx, lambda z: jnp.sum(jnp.abs(z - c) ** 2), jnp.array([0.0 + 0.0j]), 3)
    np.testing.assert_allclose(z, [c], rtol=1e-5)


NET = nn.Chain(nn.Linear(4, 8), nn.Tanh(), head=nn.Linear(8, 3))
TASK = train.Task(NET, losses.cross_entropy)
IN_FIT = {
    "kfac": optim.kfac(0.05),
    "lbfgs": optim.lbfgs(),
    "backtracking": optim.chain(optim.sgd(1.0), optim.scale_by_backtracking_linesearch(5)),
    "newton_cg": optim.newton_cg(),
    "trust_region": optim.trust_region(),
    "natural_gradient": optim.natural_gradient(1.0, "categorical", damping=1e-2, solver="cg", max_cg_steps=5),
    "sophia": optim.sophia(0.05),
    "adahessian": optim.adahessian(0.05),
    "sam": optim.sam(optim.sgd(0.1), optim.sgd(0.05), opaque_mode=True),
    "spsa": optim.spsa(0.05),
    "momo": optim.momo(),
}


@pytest.mark.parametrize("name", IN_FIT)
def test_a_step_of_training_gives_what_it_needs(name):
    """Value, gradient, functions and factors arrive, inside other transforms too: the step is traced, not run."""
    clipped = optim.chain(optim.clip_by_global_norm(1.0), IN_FIT[name])
    tx = optim.dynamic_loss_scale(optim.partition({"head/**": clipped, "**": optim.sgd(0.1)}))
    state = jax.eval_shape(lambda: train.create_state(NET, tx, jax.random.key(0)))
    new, _ = jax.eval_shape(
        lambda s: train.training_step(TASK, tx, s, problem.batch(8), curvature=train.Curvature()), state
    )
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_what_fit_cannot_give_is_named():
    state = jax.eval_shape(lambda: train.create_state(NET, optim.gauss_newton(), jax.random.key(0)))
    with pytest.raises(ValueError, match=r"scale_by_gauss_newton: it needs residual_fn="):
        jax.eval_shape(lambda s: train.training_step(TASK, optim.gauss_newton(), s, problem.batch(8)), state)
    state = jax.eval_shape(lambda: train.create_state(NET, IN_FIT["kfac"], jax.random.key(0)))
    with pytest.raises(ValueError, match=r"kfac: it gets no factors: pass curvature="):
        jax.eval_shape(lambda s: train.training_step(TASK, IN_FIT["kfac"], s, problem.batch(8)), state)


def test_logged_norms_and_rates_are_in_the_state():
    """Ask 44: what an update used is in its state, at any depth: `optim.report`, without indices into tuples."""
    tx = optim.chain(
        optim.clip_by_global_norm(1.0), optim.masked(optim.adam(optim.linear_schedule(0.1, 0.0, 10)), "**")
    )
    tx = optim.with_report(tx)
    state = tx.init(PARAMS)
    for t in range(3):
        grads = jax.tree.map(lambda p, t=t: (t + 1) * p, PARAMS)
        updates, state = tx.update(grads, state, PARAMS)
        used = optim.report(state)
        assert int(used["step"]) == t
        np.testing.assert_allclose(used["learning_rate"], 0.1 - 0.01 * t, rtol=1e-6)
        np.testing.assert_allclose(used["grad_norm"], (t + 1) * np.sqrt(5.25), rtol=1e-6)
        np.testing.assert_allclose(used["update_norm"], optim.global_norm(updates), rtol=1e-6)


def test_decay_leaves_out_biases_norms_and_scalars_of_every_kind_of_model():
    """Ask 15, by the names of leaves: of all layers here, weights and tables decay, and nothing that is a vector."""
    model = nn.Chain(
        embed=nn.Embedding(11, 8),
        blocks=nn.Stack(nn.transformer_block(8, 2), 2),
        norm=nn.LayerNorm(8),
        act=nn.PRelu(8),
        scale=nn.LayerScale(8),
        head=nn.Linear(8, 3),
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    chosen = tree.flatten(tree.match_weights(params))
    leaves = tree.flatten(params)
    yes, no = ([path for path in leaves if chosen[path] == want] for want in (True, False))
    assert {path.rsplit("/")[-1] for path in yes} == {"w", "table"}
    assert {path.rsplit("/")[-1] for path in no} == {"b", "scale", "shift", "slope"}
    for path in yes:
        assert leaves[path].ndim - path.startswith("blocks") >= 2, path
    for path in no:
        assert leaves[path].ndim - path.startswith("blocks") == 1, path
