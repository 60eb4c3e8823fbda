"""Tied weights: one matrix in the parameters, in the gradient the sum of both uses, once in a checkpoint, donated.

This is ask 48 (tied weights).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import losses, nn, optim, train, tree

VOCAB, D = 11, 8
KEY = jax.random.key(0)
IDS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (4, 6)), jnp.int32)
TARGETS = jnp.roll(IDS, -1, axis=1)


@dataclass(frozen=True)
class Tied(nn.Pure):
    embed: nn.Embedding
    body: nn.Linear

    def __call__(self, params, x):
        h = jnp.tanh(self.body(params["body"], self.embed(params["embed"], x)))
        return self.embed.attend(params["embed"], h)


@dataclass(frozen=True)
class Untied(nn.Pure):
    embed: nn.Embedding
    body: nn.Linear
    head: nn.Linear

    def __call__(self, params, x):
        h = jnp.tanh(self.body(params["body"], self.embed(params["embed"], x)))
        return self.head(params["head"], h)


TIED = Tied(nn.Embedding(VOCAB, D), nn.Linear(D, D))
UNTIED = Untied(nn.Embedding(VOCAB, D), nn.Linear(D, D), nn.Linear(D, VOCAB, bias=False))


def test_the_gradient_is_the_sum_of_both_uses():
    params = TIED.init(KEY)
    copied = {**params, "head": {"w": params["embed"]["table"].T}}

    def loss(model, params):
        return losses.cross_entropy(model(params, IDS), TARGETS).mean()

    one, tied = jax.jit(jax.value_and_grad(lambda p: loss(TIED, p)))(params)
    other, untied = jax.jit(jax.value_and_grad(lambda p: loss(UNTIED, p)))(copied)
    assert abs(float(one - other)) < 1e-6
    both = untied["embed"]["table"] + untied["head"]["w"].T
    assert float(jnp.abs(untied["head"]["w"]).max()) > 1e-3
    assert float(jnp.abs(untied["embed"]["table"]).max()) > 1e-3
    np.testing.assert_allclose(tied["embed"]["table"], both, atol=1e-6)
    np.testing.assert_allclose(tied["body"]["w"], untied["body"]["w"], atol=1e-6)


def test_the_matrix_is_there_once_and_training_donates_it(tmp_path):
    """In the parameters, in the checkpoint's bytes, and in a step that gives the old state's memory to the new one."""
    task, optimizer = train.Task(TIED, losses.cross_entropy), optim.adam(3e-2)
    state = train.create_state(TIED, optimizer, KEY)
    assert list(tree.flatten(state.params)) == ["body/b", "body/w", "embed/table"]
    step = train.make_step(task, optimizer)  # a donated buffer that cannot be used is a warning, an error in tests
    batch = {"x": IDS, "y": TARGETS, "weight": jnp.ones(4)}
    old = state
    values = []
    for _ in range(60):
        state, measured = step(state, batch)
        values.append(task.result(measured)["loss"])
    assert values[-1] < 0.5 * values[0]
    assert old.params["embed"]["table"].is_deleted()
    path = train.save(tmp_path, 60, state)
    saved = [leaf for leaf in train.read(path).arrays if "params" in leaf]
    assert sorted(saved) == ["params/body/b", "params/body/w", "params/embed/table"]
    back, _ = train.restore(path, jax.eval_shape(lambda: state))
    back, _ = step(back, batch)
    state, _ = step(state, batch)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), back.params, state.params))


def test_attend_wants_what_it_was_made_for(unchecked):
    embed = nn.Embedding(VOCAB, D)
    params = embed.init(KEY)
    with pytest.raises(ValueError, match=r"Embedding\(vocab=11, d=8\) got x of shape \(2, 5\)"):
        embed.attend(params, jnp.ones((2, 5)))
    with pytest.raises(TypeError, match="bfloat16"):
        embed.attend(params, jnp.ones((2, D), jnp.bfloat16))
