"""Ask 39: what Python does in a step of the loop. Calls are counted, since times on a busy machine are noise.

`benchmarks/loop.py` has the times. What runs once for each leaf or layer would show in the difference between two and
sixty layers; what runs once a step, in the count itself.
"""

import sys
from collections import Counter

import jax
import jax.numpy as jnp
from support import training as problem

from dlkit import data, losses, nn, optim, train

FROM, TO = 20, 60  # steps that are counted: the first ones compile, the last one ends the epoch
PYTHON, C = "call", "c_call"


class Profile(train.Callback):
    """Counts the calls between two steps. Its own hook is one of them."""

    def __init__(self):
        self.calls = Counter()

    def on_step(self, run):
        if run.step == FROM:
            sys.setprofile(lambda frame, event, arg: self.calls.update((event,)))
        elif run.step == TO:
            sys.setprofile(None)

    def on_close(self, run):
        sys.setprofile(None)

    def per_step(self, kind):
        return self.calls[kind] / (TO - FROM)


def network(depth):
    """Plain nested dicts of `depth` layers, no scan."""
    return nn.Chain(*[nn.Linear(4, 4) for _ in range(depth - 1)], head=nn.Linear(4, 3))


def counted(depth, *others, **options):
    profile = Profile()
    task = problem.task(network(depth))
    loader = data.Loader(problem.points(4 * (TO + 5)), 4, seed=0)
    train.fit(
        task, optim.sgd(1e-3, momentum=0.9), loader, epochs=1, log_every=10_000, callbacks=[profile, *others], **options
    )
    return profile


def test_the_loop_makes_fewer_than_30_python_calls_a_step_however_deep_the_network():
    shallow, deep = counted(2), counted(60)
    assert 1 <= deep.per_step(PYTHON) < 30, deep.per_step(PYTHON)
    assert 1 <= deep.per_step(C) < 40, deep.per_step(C)
    for kind in (PYTHON, C):
        assert deep.per_step(kind) == shallow.per_step(kind), kind


def test_the_count_sees_what_runs_for_each_leaf():
    """A hook that looks at every leaf in Python, planted, breaks the bound by far."""

    class Nosy(train.Callback):
        def on_step(self, run):
            jax.tree.map(lambda leaf: leaf.dtype, run.state.params)

    assert counted(20, Nosy()).per_step(PYTHON) > 30 + 20


def test_calling_a_step_of_30_layers_costs_what_calling_jit_on_a_flat_tuple_costs():
    task, optimizer = train.Task(network(30), losses.cross_entropy), optim.sgd(1e-3, momentum=0.9)
    state, batch = train.create_state(task.model, optimizer, jax.random.key(0)), problem.batch()
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.copy, state))

    def flat(leaves, batch):
        new, measured = train.training_step(task, optimizer, jax.tree.unflatten(treedef, leaves), batch)
        return jax.tree.leaves(new), measured

    calls = {}
    for name, step, held in (
        ("dicts", train.make_step(task, optimizer), state), ("flat", jax.jit(flat, donate_argnums=0), leaves)
    ):  # fmt: skip
        for _ in range(3):
            held, _ = step(held, batch)
        counts = Counter()
        sys.setprofile(lambda frame, event, arg, counts=counts: counts.update((event,)))
        try:
            held, _ = step(held, batch)
        finally:
            sys.setprofile(None)
        calls[name] = counts
    for kind in (PYTHON, C):
        assert calls["dicts"][kind] - calls["flat"][kind] < 10, (kind, calls)
