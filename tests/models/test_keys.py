"""Ask 11: no model uses a key twice, in its initialization or in a whole training step; every draw has one of its own.

JAX checks the reuse of keys as it traces, so nothing of the steps is compiled.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

from dlkit import losses, models, nn, optim, train
from dlkit.testing.randomness import recording

KEY = jax.random.key(0)
PIXELS = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
COLORS = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((2, 6), jnp.int32)
LABELS = jax.ShapeDtypeStruct((2,), jnp.int32)
CLASSES = losses.cross_entropy

# model, loss, inputs, targets, and how many random draws a training step makes
MODELS = {
    "mlp": (
        models.mlp((16, 8, 8, 3), dropout=0.5, norm="batch"),
        CLASSES,
        jax.ShapeDtypeStruct((2, 16), jnp.float32),
        LABELS,
        2,
    ),
    "cnn": (models.cnn((8, 8, 1), 3, (4, 8), hidden=8, dropout=0.5, norm="batch"), CLASSES, PIXELS, LABELS, 2),
    "resnet20": (
        nn.Chain(flip=nn.RandomFlip(), crop=nn.RandomCrop(2), **models.resnet20(3).children()),
        CLASSES,
        COLORS,
        LABELS,
        2,
    ),
    # of the embedding once; in each block of the attention's weights, the hidden units and two branches
    "gpt": (models.gpt(11, 6, 8, 2, 3, rate=0.1), CLASSES, TOKENS, TOKENS, 1 + 3 * 4),
    "vae": (models.vae((8, 8, 1), (8,), 2), losses.negative_elbo, PIXELS, PIXELS, 1),
}


def traced_step(model, loss, x, y):
    """One whole step, traced: gradient, metrics, optimizer."""
    task = train.Task(model, loss)
    tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(1e-3))
    batch = {"x": x, "y": y, "weight": jax.ShapeDtypeStruct(x.shape[:1], jnp.float32)}
    start = jax.jit(lambda key: train.create_state(model, tx, key)).trace(KEY)
    jax.jit(lambda state, batch: train.training_step(task, tx, state, batch)).trace(start.out_info, batch)


@pytest.mark.parametrize("name", MODELS)
def test_no_key_is_used_twice(name):
    model, loss, x, y, _ = MODELS[name]
    with jax.debug_key_reuse(True):
        traced_step(model, loss, x, y)


@dataclass(frozen=True)
class Twice(nn.Layer):
    init_too: bool = False

    def init(self, key):
        w = jax.random.normal(key, (8, 3))
        return {"w": w + jax.random.uniform(key, (8, 3)) if self.init_too else w}

    def apply(self, params, state, x, mode):
        if (key := mode.rng("noise")) is not None and not self.init_too:
            x = x * jax.random.uniform(key, x.shape) + jax.random.normal(key, x.shape)
        return x @ params["w"], None


@pytest.mark.parametrize("layer", [Twice(), Twice(init_too=True)], ids=repr)
def test_a_key_that_is_used_twice_is_found(layer):
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        traced_step(layer, CLASSES, jax.ShapeDtypeStruct((2, 8), jnp.float32), LABELS)


@pytest.mark.parametrize("name", ["mlp", "resnet20", "gpt"])
def test_every_draw_has_a_key_of_its_own(name):
    """The checker takes two keys that are folded alike for two: here their bits are compared, those of two steps."""
    model, _, x, _, count = MODELS[name]
    params, state = jax.eval_shape(lambda: (model.init(KEY), model.init_state()))
    drawn = []

    @jax.jit
    def keys_alone(step):
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (params, state, x))
        model.apply(*zeros, recording(jax.random.fold_in(KEY, step), drawn))

    for step in (0, 1):
        keys_alone(step)
        jax.effects_barrier()
    assert len(drawn) == 2 * count
    assert len({bits for _, bits in drawn}) == 2 * count
