"""Where `reduce_on_plateau` reduces: by hand, beside torch, beside optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.reference import reference

from dlkit import optim

P = {"w": jnp.array([1.0, -2.0, 0.5])}
LOSSES = [3.0, 2.0, 1.5, 1.5, 1.4999, 1.6, 1.0, 1.1, 1.2, 1.3, 1.0, 1.0]


def test_plateau_reduces_where_the_hand_says():
    """patience 2, cooldown 1: bad checks at 3, 4 (reduce), 5 (cooldown), 7, 8 (reduce), 9 (cooldown), 10, 11."""
    tx = optim.reduce_on_plateau(factor=0.5, patience=2, cooldown=1, rtol=1e-3, min_scale=0.2)
    state, scales = tx.init(P), []
    for value in LOSSES:
        updates, state = tx.update(P, state, P, value=value)
        scales.append(float(state.scale))
        np.testing.assert_allclose(updates["w"], state.scale * P["w"], rtol=1e-6)
    np.testing.assert_allclose(scales, [1.0] * 4 + [0.5] * 4 + [0.25] * 3 + [0.2])


def test_plateau_is_one_check_more_patient_in_torch():
    def theirs():
        import torch

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=1)
        rates = []
        for value in LOSSES:
            scheduler.step(value)
            rates.append(optimizer.param_groups[0]["lr"])
        return {"rates": np.array(rates)}

    tx = optim.reduce_on_plateau(factor=0.5, patience=2, cooldown=1)
    state, scales = tx.init(P), []
    for value in LOSSES:
        _, state = tx.update(P, state, P, value=value)
        scales.append(float(state.scale))
    np.testing.assert_allclose(scales, reference("plateau/scales", theirs, needs="torch")["rates"])


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2, "cooldown": 3, "factor": 0.5},
        {"patience": 1, "accumulation_size": 3, "factor": 0.5, "min_scale": 0.2},
        {"patience": 4, "cooldown": 1, "rtol": 0.0, "atol": 0.02, "factor": 0.7},
    ],
)
def test_plateau_states_equal_optax(options):
    noise = np.random.default_rng(0).standard_normal(60)
    values = jnp.asarray(np.concatenate([np.linspace(3, 1, 10), 1 + 0.01 * noise]), jnp.float32)

    def states(tx):
        def step(state, value):
            return (state := tx.update(P, state, P, value=value)[1]), state

        with jax.numpy_dtype_promotion("standard"):
            return jax.lax.scan(step, tx.init(P), values)[1]

    ours, theirs = states(optim.reduce_on_plateau(**options)), states(optax.contrib.reduce_on_plateau(**options))
    assert ours._fields == theirs._fields
    for name in ours._fields:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-5, err_msg=name)
