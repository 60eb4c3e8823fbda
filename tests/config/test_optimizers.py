"""Every recipe by its name in a config; what K-FAC needs comes with it; a policy of dtypes; what decays is printed."""

from typing import get_args

import jax
import numpy as np
import pytest

from dlkit import optim, train, tree
from dlkit.cli import report
from dlkit.config import ConfigError, build, parse
from dlkit.config.assemble import assemble
from dlkit.config.parts import RecipeName

BASE = """
data = {name = "digits", limit = 200, valid = 0, test = 0}
model = {name = "mlp", widths = [64, 8, 10], norm = "batch"}
loss = {name = "cross_entropy"}
optimizer = {name = "sgd", learning_rate = 0.5}
train = {epochs = 3, batch_size = 50}
"""
NEEDED = {
    "natural_gradient": "likelihood = 'categorical'",
    "cma_es": "initial_step = 0.1",
    "galore": "rank = 2",
    "noisy_sgd": "key = 0",
}


def one(written):
    return parse(BASE, [f"optimizer={{{written}}}"])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", get_args(RecipeName))
def test_every_name_builds(name):
    """With a learning rate where the recipe has one, and a state for the model's parameters."""
    rates = {"damped_newton", "trust_region", "cma_es"}
    rate = "" if name in rates else ", learning_rate = 0.1"
    spec = one(f"name = '{name}'{rate}, options = {{{NEEDED.get(name, '')}}}").optimizer
    tx = build.optimizer(spec, 100)
    params = {"head": {"w": jax.ShapeDtypeStruct((4, 3), np.float32), "b": jax.ShapeDtypeStruct((3,), np.float32)}}
    jax.eval_shape(tx.init, params)


def test_options_schedules_clipping_and_masks():
    muon = one("name='muon', learning_rate=0.02, clip_norm=1, options={beta=0.9, weight_decay=0.1}").optimizer
    assert build.optimizer(muon, 40) == optim.chain(
        optim.clip_by_global_norm(1.0),
        optim.muon(0.02, beta=0.9, weight_decay=0.1, weight_decay_mask=optim.WEIGHTS),
    )
    lion = one("name='lion', learning_rate=0.02, schedule={name='cosine'}, options={weight_decay=0}").optimizer
    assert build.optimizer(lion, 40) == optim.lion(optim.cosine_decay_schedule(0.02, 40), weight_decay=0)
    assert build.optimizer(one("name='lbfgs'").optimizer, 40) == optim.lbfgs()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("name='lion', learning_rate=0.1, options={b3=0.9}", ["optimizer.options.b3", "lion", "known are b1, b2"]),
        ("name='lion', learning_rate=0.1, options={b1=1.5}", ["optimizer.options", "b1 is 1.5"]),
        ("name='lion'", ["optimizer.learning_rate", "lion needs one"]),
        ("name='trust_region', learning_rate=0.1", ["optimizer.learning_rate", "leave it out"]),
        ("name='natural_gradient', learning_rate=0.1", ["natural_gradient needs likelihood"]),
        ("name='lion', learning_rate=0.1, options={mask=true}", ["optimizer.options.mask", "no such option"]),
        ("name='kfacc', learning_rate=0.1", ["'kfac'"]),
    ],
)
def test_what_does_not_fit_is_a_config_error(written, words):
    with pytest.raises(ConfigError) as info:
        build.optimizer(one(written).optimizer, 40)
    for word in words:
        assert word in str(info.value)


@pytest.mark.parametrize(
    "written",
    [
        "name='kfac', learning_rate=0.1, options={weight_decay=0.01}",
        "name='lbfgs'",
        "name='newton_cg', learning_rate=0.5, options={max_cg_steps=5}",
    ],
)
def test_trained_by_name(written):
    """What their updates need beside gradients, the loop gives: the loss falls from that of the first epoch."""
    parts = assemble(one(written))
    result = train.fit(parts.task, parts.optimizer, parts.training, **parts.fit_options())
    assert result.last["train/loss"] < 0.7 * result.history[0]["train/loss"]


def test_kfac_wants_a_likelihood():
    wrong = parse(BASE, ["optimizer={name='kfac', learning_rate=0.1}", "loss={name='multiclass_hinge'}"])
    with pytest.raises(ConfigError, match=r"kfac wants a likelihood as the loss, .*hinge is none"):
        assemble(wrong)


def test_a_policy(tmp_path):
    """Ask 20: parameters in float32, computed in float16, and the loss scaled, which float16 needs."""
    parts = assemble(parse(BASE, ["train.policy={compute='float16'}"]))
    params = jax.eval_shape(parts.task.model.init, jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert parts.optimizer == optim.dynamic_loss_scale(optim.sgd(0.5))
    half = assemble(parse(BASE, ["train.policy={}"]))
    assert half.task.model == train.Policy(compute="bfloat16")(assemble(parse(BASE)).task.model)
    assert half.optimizer == optim.sgd(0.5)
    assert "dtypes   parameters float32, computed in bfloat16, outputs float32" in report.header(half, "c", tmp_path)


@pytest.mark.parametrize(
    ("model", "decaying", "others"),
    [
        ("{name='mlp', widths=[64, 8, 10], norm='batch'}", {"w"}, {"b", "scale", "shift"}),
        ("{name='cnn', input=[8, 8, 1], classes=10, channels=[4], norm='batch'}", {"w"}, {"b", "scale", "shift"}),
        ("{name='linear', d_in=64, classes=10}", {"w"}, {"b"}),
    ],
)
def test_what_decays_is_printed(model, decaying, others, tmp_path):
    """Ask 15: both lists of each example model, and their sizes in the header of a run."""
    adamw = "optimizer={name='adamw', learning_rate=0.1}"
    parts = assemble(parse(BASE, [f"model={model}", adamw]))
    params = tree.flatten(jax.eval_shape(parts.task.model.init, jax.random.key(0)))
    mask = build.decay_mask(parts.config.optimizer)
    assert mask is not None
    chosen = tree.flatten(tree.match_weights(jax.eval_shape(parts.task.model.init, jax.random.key(0)), mask))
    assert {path.split("/")[-1] for path in params if chosen[path]} == decaying
    assert {path.split("/")[-1] for path in params if not chosen[path]} == others
    yes = sum(leaf.size for leaf in params.values() if leaf.ndim > 1)
    no = sum(leaf.size for leaf in params.values() if leaf.ndim == 1)
    assert f"decay    {yes:,} parameters decay (**/w, **/table), {no:,} do not" in report.header(parts, "c", tmp_path)


def test_what_is_printed_where_nothing_decays(tmp_path):
    assert "decay" not in report.header(assemble(parse(BASE)), "c", tmp_path)
    assert build.decay_mask(one("name='soap', learning_rate=0.1").optimizer) == optim.WEIGHTS  # its default is not 0
    assert build.decay_mask(one("name='lion', learning_rate=0.1, options={weight_decay=0.0}").optimizer) is None
