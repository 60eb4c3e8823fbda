"""Ask 13: what is frozen stays, to the bit, has no slots and no part in a norm, and costs no backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import training as problem

from dlkit import losses, models, nn, optim, train, tree
from dlkit.config import ConfigError, parse
from dlkit.config.assemble import assemble

CONFIG = """
data = {name = "digits", limit = 80}
loss = {name = "cross_entropy"}
optimizer = {name = "adamw", learning_rate = 0.05, weight_decay = 0.1, clip_norm = 0.1, mask = ["**"]}
train = {epochs = 1, batch_size = 16, freeze = ["backbone/**"]}

[model]
name = "chain"
layers = [
  { type = "Flatten" },
  { name = "backbone", type = "Chain", layers = [
    { type = "Linear", d_in = 64, d_out = 16 },
    { type = "BatchNorm", d = 16 },
    { type = "Relu" },
  ] },
  { name = "head", type = "Linear", d_in = 16, d_out = 10 },
]
"""


def network(dropout=0.0):
    backbone = nn.Chain(nn.Linear(4, 64), nn.Relu(), nn.Linear(64, 64), norm=nn.BatchNorm(64))
    return nn.Chain(backbone=backbone, drop=nn.Dropout(dropout), head=nn.Linear(64, 3))


def optimizer():
    return optim.chain(optim.clip_by_global_norm(0.1), optim.adamw(0.05, weight_decay=0.1))


@pytest.mark.usefixtures("unchecked")
def test_a_config_that_freezes():
    """Five AdamW steps with decay and clipping."""
    parts = assemble(parse(CONFIG))
    result = train.fit(parts.task, parts.optimizer, parts.training, log_grad_norm=True, **parts.fit_options())
    assert int(result.state.step) == 5
    start = train.create_state(parts.task.model, parts.optimizer, jax.random.key(0), freeze=["backbone/**"])
    for path, before in tree.flatten({"params": start.params, "state": start.state}).items():
        after = tree.flatten({"params": result.state.params, "state": result.state.state})[path]
        assert problem.equal(before, after) == ("backbone" in path), path
    assert {p.split("mu/")[1] for p in tree.flatten(result.state.opt_state) if "mu/" in p} == {"head/b", "head/w"}
    assert tree.nbytes(start.opt_state) < tree.nbytes(parts.optimizer.init(start.params)) / 4
    # The gradient's norm is that of the head alone: what clipping saw.
    assert result.last["grad_norm"] == pytest.approx(float(optim.gradient_norm(result.state.opt_state)), rel=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.freeze=['bakbone/**']", r"train.freeze: .*'bakbone/\*\*' matches none .* near it: backbone"),
        ("train.freeze=['**']", r"train.freeze: '\*\*' leave no parameter"),
        ("train.accumulate=3", "train.accumulate: 3 does not divide train.batch_size = 16"),
    ],
)
def test_a_config_that_cannot(change, message):
    with pytest.raises(ConfigError, match=message):
        assemble(parse(CONFIG, [change]))


def test_the_head_learns_as_if_it_were_alone():
    """The gradient norm, the clipping and the updates are those of a head on the features of the backbone."""
    task, batch = problem.task(network(), metrics={}), problem.batch()
    tx = optimizer()
    state = train.create_state(task.model, tx, jax.random.key(0), freeze="backbone/**")
    backbone = task.model.children()["backbone"]
    features, _ = backbone.apply(state.params["backbone"], state.state["backbone"], batch["x"], nn.EVAL)
    alone = train.Task(nn.Linear(64, 3), losses.cross_entropy)
    head = train.TrainState(state.step, state.params["head"], None, tx.init(state.params["head"]), state.key)
    step = train.make_step(task, tx, freeze="backbone/**", log_grad_norm=True, donate=False)
    other = train.make_step(alone, tx, log_grad_norm=True, donate=False)
    for _ in range(5):
        state, a = step(state, batch)
        head, b = other(head, batch | {"x": features})
        np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), state.params["head"], head.params)
    assert step.traces == 1


def test_the_backward_pass_is_cut():
    """FLOPs by XLA's own count: forward once, and backward through the head alone."""
    task, tx, batch = problem.task(network(), metrics={}), optimizer(), problem.batch()
    counts = {}
    for globs in ((), ("backbone/**",), ("head/**",)):
        state = train.create_state(task.model, tx, jax.random.key(0), freeze=globs)
        compiled = train.make_step(task, tx, freeze=globs).lower(state, batch).compile()
        counts[globs] = compiled.cost_analysis()["flops"]
    assert counts["backbone/**",] < 0.5 * counts[()]
    assert counts["backbone/**",] < 0.5 * counts["head/**",]


def test_statistics_are_used_and_kept():
    """In a frozen backbone BatchNorm normalizes by what it remembers; in a trained one by the batch."""
    task, tx, batch = problem.task(network(), metrics={}), optim.sgd(0.1), problem.batch()
    state = train.create_state(task.model, tx, jax.random.key(0), freeze=["backbone/**"])
    far = jax.tree.map(lambda s: s + 3.0, state.state)
    state = state._replace(state=far)
    expected, _ = jax.jit(task.loss_fn)(state.params, far, batch, nn.EVAL)
    new, measured = train.make_step(task, tx, freeze=["backbone/**"], donate=False)(state, batch)
    np.testing.assert_allclose(task.result(measured)["loss"], expected, rtol=1e-6)
    assert problem.equal(new.state, far)
    # Statistics alone can be frozen, and scale and shift alone can be.
    only = train.create_state(task.model, tx, jax.random.key(0), freeze=["**/mean", "**/var"])._replace(state=far)
    new, measured = train.make_step(task, tx, freeze=["**/mean", "**/var"], donate=False)(only, batch)
    np.testing.assert_allclose(task.result(measured)["loss"], expected, rtol=1e-6)
    assert problem.equal(new.state, far)
    assert not problem.equal(new.params["backbone"]["norm"], only.params["backbone"]["norm"])
    globs = ["**/scale", "**/shift"]
    new, _ = train.make_step(task, tx, freeze=globs, donate=False)(
        train.create_state(task.model, tx, jax.random.key(0), freeze=globs), batch
    )
    assert not problem.equal(new.state, train.create_state(task.model, tx, jax.random.key(0)).state)


def test_statistics_inside_a_stack_and_a_resnet():
    """Paths of layers that stand for others, and blocks that make their own parts."""
    block = nn.Chain(nn.Linear(4, 4), norm=nn.BatchNorm(4))
    model = nn.Chain(blocks=nn.Stack(block, 3), head=nn.Linear(4, 3))
    task, tx = problem.task(model, metrics={}), optim.sgd(0.1)
    state = train.create_state(model, tx, jax.random.key(0), freeze=["blocks/**"])
    expected, _ = jax.jit(task.loss_fn)(state.params, state.state, problem.batch(), nn.EVAL)
    new, measured = train.make_step(task, tx, freeze=["blocks/**"], donate=False)(state, problem.batch())
    np.testing.assert_allclose(task.result(measured)["loss"], expected, rtol=1e-6)
    assert problem.equal(new.state, state.state)
    resnet = train.Task(models.resnet20(10), losses.cross_entropy)
    kept = [p for p in tree.flatten(jax.eval_shape(resnet.model.init, jax.random.key(0))) if not p.startswith("head")]
    state = jax.eval_shape(
        lambda key: train.create_state(resnet.model, tx, key, freeze=[*kept, "**/mean", "**/var"]),
        jax.random.key(0),
    )
    batch = {"x": jnp.zeros((2, 32, 32, 3)), "y": jnp.zeros(2, jnp.int32), "weight": jnp.ones(2)}
    shapes = jax.eval_shape(
        lambda s, b: train.training_step(resnet, tx, s, b, freeze=[*kept, "**/mean", "**/var"]), state, batch
    )[0]
    assert tree.diff(state, shapes) == ""


def test_a_pattern_that_matches_nothing_raises():
    task, tx = problem.task(network()), optim.sgd(0.1)
    message = r"freeze: pattern 'bakbone/\*\*' matches none of the \d+ paths; near it: backbone"
    with pytest.raises(ValueError, match=message):
        train.create_state(task.model, tx, jax.random.key(0), freeze=["bakbone/**"])
    state = train.create_state(task.model, tx, jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        train.make_step(task, tx, freeze=["bakbone/**"])(state, problem.batch())
    with pytest.raises(ValueError, match=message):
        train.fit(task, tx, problem.points(), freeze=["bakbone/**"])


def test_a_state_made_without_freezing_is_explained():
    task, tx = problem.task(network()), optim.adam(0.1)
    state = train.create_state(task.model, tx, jax.random.key(0))
    with pytest.raises(ValueError, match=r"create_state\(model, optimizer, key, freeze=...\), the same globs:\n.*mu"):
        train.make_step(task, tx, freeze=["backbone/**"])(state, problem.batch())


def test_a_frozen_run_resumes_to_the_same_bits(tmp_path):
    task = problem.task(network(dropout=0.25))
    common = {"batch_size": 32, "freeze": ["backbone/**"], "accumulate": 2}
    whole = train.fit(task, optimizer(), problem.points(), epochs=2, **common)
    train.fit(task, optimizer(), problem.points(), epochs=1, run_dir=tmp_path, **common)
    again = train.fit(task, optimizer(), problem.points(), epochs=2, run_dir=tmp_path, **common)
    assert problem.equal(whole.state, again.state)
    with pytest.raises(train.CheckpointError, match="opt_state"):
        train.fit(task, optimizer(), problem.points(), epochs=3, run_dir=tmp_path, batch_size=32)


def test_frozen_parameters_do_not_share_a_donated_buffer():
    task, tx = problem.task(network()), optimizer()
    state = train.create_state(task.model, tx, jax.random.key(0), freeze=["backbone/**"])
    step = train.make_step(task, tx, freeze=["backbone/**"])
    for _ in range(3):
        state, _ = step(state, problem.batch())
    assert step.traces == 1
