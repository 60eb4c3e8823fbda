"""Ask 34: where one leaf of 500 does not fit, whoever finds it names that leaf, in under 10 lines."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

from dlkit import losses, nn, optim, train
from dlkit.train import checkpoint

RIGHT = {f"layer{i:03}": {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)} for i in range(250)}
WRONG = {**RIGHT, "layer077": {"w": jnp.zeros((2, 3)), "b": jnp.zeros(2)}}


@dataclass(frozen=True)
class Many(nn.Layer):
    """Remembers the tree, and spoils one leaf of it."""

    def init(self, key):
        return {"w": jnp.ones(())}

    def init_state(self):
        return RIGHT

    def apply(self, params, state, x, mode):
        w = state["layer077"]["w"]
        spoiled = jnp.zeros((2, 3)) if mode.train else w
        return x * params["w"], {**state, "layer077": {**state["layer077"], "w": spoiled}}


def restore(folder):
    checkpoint.restore(checkpoint.save(folder, 0, WRONG), RIGHT)


def update(folder):
    tx = optim.adamw(1e-3)
    tx.update(WRONG, tx.init(RIGHT), RIGHT)


def masked_update(folder):
    tx = optim.chain(optim.clip_by_global_norm(1.0), optim.masked(optim.adam(1e-3), "**/w"))
    tx.update(WRONG, tx.init(RIGHT), RIGHT)


def ema(folder):
    tx = optim.ema(0.9)
    tx.update(WRONG, tx.init(RIGHT))


def target_network(folder):
    optim.incremental_update(WRONG, RIGHT, 0.1)


def accumulated_updates(folder):
    tx = optim.MultiSteps(optim.sgd(0.1), 2)
    tx.update(WRONG, tx.init(RIGHT), RIGHT)


def _train(**options):
    task = train.Task(Many(), losses.mse)
    step = train.make_step(task, optim.sgd(0.1), **options)
    batch = {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 2)), "weight": jnp.ones(4)}
    step(train.create_state(task.model, optim.sgd(0.1), jax.random.key(0)), batch)


def step(folder):
    _train()


def accumulation(folder):
    _train(accumulate=2)


def scan(folder, scan=True):
    stack = nn.Stack(Many(), 3, scan=scan)
    stack.apply(stack.init(jax.random.key(0)), stack.init_state(), jnp.ones((4, 2)), nn.training(None))


def unrolled(folder):
    scan(folder, scan=False)


USERS = [restore, update, masked_update, ema, target_network, accumulated_updates, step, accumulation, scan, unrolled]


@pytest.mark.parametrize("use", USERS, ids=lambda use: use.__name__)
def test_one_leaf_of_500_is_named(use, tmp_path):
    with pytest.raises((ValueError, train.CheckpointError)) as error:
        use(tmp_path)
    lines = str(error.value).splitlines()
    named = [line for line in lines if "layer077/w: expected float32[" in line]
    assert len(named) == 1, error.value
    assert "got float32[" in named[0]
    assert "2,3]" in named[0]
    assert len(lines) < 10
    assert not any(f"layer{other}/" in str(error.value) for other in ("000", "076", "078", "249"))
    assert len(str(error.value)) < 1000
