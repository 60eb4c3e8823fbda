"""Presets: every layer starts as in torch, or as in flax; and a model's layers are found wherever they are."""

from dataclasses import dataclass, replace

import flax.linen as fnn
import jax
import jax.numpy as jnp
import pytest
from support.distributions import assert_same_statistics, statistics
from support.reference import reference

from dlkit import nn, tree
from dlkit.nn import init_preset, initializers

KEY = jax.random.key(0)

# name: the layer, torch's module, flax's module and an input for it. Biases have a standard error of 0.4 %.
LAYERS = {
    "linear": (nn.Linear(16, 65536), ("Linear", (16, 65536), {}), fnn.Dense(65536), (1, 16)),
    "conv1d": (nn.Conv(4, 65536, 3, dims=1), ("Conv1d", (4, 65536, 3), {}), fnn.Conv(65536, (3,)), (1, 3, 4)),
    "conv2d": (nn.Conv(2, 65536, 3), ("Conv2d", (2, 65536, 3), {}), fnn.Conv(65536, (3, 3)), (1, 3, 3, 2)),
    "conv2d_grouped": (
        nn.Conv(8, 65536, 3, groups=4),
        ("Conv2d", (8, 65536, 3), {"groups": 4}),
        fnn.Conv(65536, (3, 3), feature_group_count=4),
        (1, 3, 3, 8),
    ),
    "conv2d_depthwise": (
        nn.Conv(65536, 65536, 3, groups=65536),
        ("Conv2d", (65536, 65536, 3), {"groups": 65536}),
        fnn.Conv(65536, (3, 3), feature_group_count=65536),
        (1, 3, 3, 65536),
    ),
    "conv3d": (
        nn.Conv(2, 65536, 2, dims=3),
        ("Conv3d", (2, 65536, 2), {}),
        fnn.Conv(65536, (2, 2, 2)),
        (1, 2, 2, 2, 2),
    ),
    "embedding": (nn.Embedding(4096, 64), ("Embedding", (4096, 64), {}), fnn.Embed(4096, 64), None),
    "batch_norm": (nn.BatchNorm(64), ("BatchNorm1d", (64,), {}), fnn.BatchNorm(use_running_average=True), (1, 64)),
    "layer_norm": (nn.LayerNorm(64), ("LayerNorm", (64,), {}), fnn.LayerNorm(), (1, 64)),
    "rms_norm": (nn.RMSNorm(64), ("RMSNorm", (64,), {}), fnn.RMSNorm(), (1, 64)),
    "group_norm": (nn.GroupNorm(4, 64), ("GroupNorm", (4, 64), {}), fnn.GroupNorm(4), (1, 64)),
    "prelu": (nn.PRelu(), ("PReLU", (), {}), fnn.PReLU(), (1, 64)),
}
TORCH_NAMES = {"w": "weight", "table": "weight", "scale": "weight", "slope": "weight", "b": "bias", "shift": "bias"}
FLAX_NAMES = {
    "w": "kernel",
    "table": "embedding",
    "scale": "scale",
    "slope": "negative_slope",
    "b": "bias",
    "shift": "bias",
}


@pytest.mark.parametrize("name", LAYERS)
def test_torch(name):
    layer, (module, arguments, keywords), _, _ = LAYERS[name]
    params = init_preset(layer, "torch").init(KEY)

    def compute():
        import torch

        torch.manual_seed(0)
        theirs = getattr(torch.nn, module)(*arguments, **keywords)
        found = {}
        for leaf in params:
            values = statistics(getattr(theirs, TORCH_NAMES[leaf]).detach().numpy())
            found |= {f"{leaf}_{k}": v for k, v in values.items()}
        return found

    want = reference(f"nn/presets/{name}", compute)
    for leaf, value in params.items():
        expected = {k: want[f"{leaf}_{k}"] for k in ("mean", "std", "low", "high")}
        assert_same_statistics(statistics(value), expected, f"{name}/{leaf}", bounded=name != "embedding")


@pytest.mark.parametrize("name", LAYERS)
def test_flax(name):
    layer, _, theirs, shape = LAYERS[name]
    x = jnp.zeros((1,), jnp.int32) if shape is None else jnp.zeros(shape)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        # Only the parameters are made: the module's own call is never computed.
        want = jax.jit(lambda key: theirs.init(key, x))(jax.random.key(1))["params"]
    params = init_preset(layer, "flax").init(KEY)
    assert {FLAX_NAMES[leaf] for leaf in params} == want.keys()
    for leaf, value in params.items():
        expected = statistics(want[FLAX_NAMES[leaf]])
        assert_same_statistics(statistics(value), expected, f"{name}/{leaf}", bounded=name != "embedding")


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "prelu"])
def test_dlkits_own_defaults_are_flaxs(name):
    """Except for PReLU, whose slope starts at 0.25 as in its paper; docs/initializers.md says so."""
    layer = LAYERS[name][0]
    assert init_preset(layer, "flax") == layer
    assert nn.PRelu().slope_init == initializers.Constant(0.25)


@dataclass(frozen=True)
class Own(nn.Pure):
    """A layer of a user, with a layer, a tuple of layers, and an initializer that no preset knows."""

    inner: nn.Linear
    towers: tuple[nn.Linear, ...]
    first: initializers.Initializer = initializers.Normal(0.5)
    sizes: tuple[int, ...] = (1, 2)


def test_layers_are_found_at_any_depth():
    linear = nn.Linear(4, 4)
    model = nn.Chain(
        linear,
        nn.Relu(),
        own=Own(linear, (linear, linear)),
        blocks=nn.Stack(nn.Residual(nn.Chain(linear, nn.Dropout(0.1)), shortcut=linear), 3, remat="full"),
        gate=nn.GatedLinear(4, 4, nn.PRelu(4)),
    )
    torch = replace(linear, w_init=initializers.torch_weight(), b_init=initializers.torch_bias())
    gate = replace(nn.GatedLinear(4, 4), w_init=torch.w_init, b_init=torch.b_init, activation=nn.PRelu(4))
    assert init_preset(model, "torch") == nn.Chain(
        torch,
        nn.Relu(),
        own=Own(torch, (torch, torch)),
        blocks=nn.Stack(nn.Residual(nn.Chain(torch, nn.Dropout(0.1)), shortcut=torch), 3, remat="full"),
        gate=gate,
    )
    assert init_preset(init_preset(model, "torch"), "flax")["linear1"] == linear
    before, after = (jax.eval_shape(m.init, KEY) for m in (model["blocks"], init_preset(model, "torch")["blocks"]))
    assert tree.diff(before, after) == ""


def test_a_model_that_holds_nothing_to_replace_stays_itself():
    layer = nn.Residual(nn.LayerNorm(4))
    assert init_preset(layer, "torch") is layer


def test_an_unknown_preset():
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="init_preset got 'keras'; expected one of 'torch', 'flax'"):
            init_preset(nn.Linear(2, 2), "keras")  # pyright: ignore
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_every_layer_that_draws_weights_is_in_the_presets():
    """A layer added later with initializers of its own must say what the libraries start it from."""
    from dlkit.nn.presets import PRESETS
    from dlkit.nn.recipe import Recipe

    from_one_and_zero = {nn.BatchNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.GraphNorm}
    from_one_and_zero |= {nn.InstanceNorm, nn.LayerScale, nn.Film}
    of_neither = {nn.VectorQuantizer, nn.VectorQuantizerEMA}  # haiku's start from what they start from
    of_neither |= {nn.LearnedPositions, nn.RelativeBias}  # BERT's and T5's code do
    public = [getattr(nn, name) for name in nn.__all__]
    with_inits = {
        c
        for c in public
        if isinstance(c, type)
        and issubclass(c, nn.Layer)
        and not issubclass(c, Recipe)  # replaced by the layers it builds
        and any(f.endswith("_init") for f in getattr(c, "__annotations__", {}))
    }
    for preset, table in PRESETS.items():
        assert with_inits - from_one_and_zero - of_neither == set(table), preset
