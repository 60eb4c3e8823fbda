"""Low-rank adaptation: changes nothing at first, merges exactly, trains alone, finds its layers wherever they are."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dlkit import nn, tree
from dlkit.config import from_data, to_data

KEY, OTHER = jax.random.key(0), jax.random.key(1)


@dataclass(frozen=True)
class Towers(nn.Pure):
    """A layer of a user, with a layer and a tuple of layers in fields."""

    first: nn.Linear
    rest: tuple[nn.Linear, ...]

    def __call__(self, params, x):
        x = self.first(params["first"], x)
        for layer, p in zip(self.rest, params["rest"], strict=True):
            x = jnp.tanh(layer(p, x))
        return x


LINEAR = nn.Linear(6, 6)
MODEL = nn.Chain(
    nn.Linear(4, 6),
    towers=Towers(LINEAR, (LINEAR, LINEAR)),
    blocks=nn.Stack(nn.Residual(nn.Chain(LINEAR, mlp=nn.GatedFeedForward(6, 5))), 3),
    head=nn.Linear(6, 2, bias=False),
)
PATTERNS = ("towers/first", "towers/rest/1", "blocks/body/*", "blocks/**/gate", "head")
X = jax.random.normal(jax.random.key(2), (5, 4))


def adapted(rank=2, alpha=4.0, filled=True):
    """The model with adapters and its parameters; with `filled`, those of adapters that have learned something."""
    base = MODEL.init(KEY)
    model = nn.lora(MODEL, PATTERNS, rank=rank, alpha=alpha)
    params = nn.add_lora(model, base, OTHER)
    if filled:
        keys = iter(jax.random.split(jax.random.key(3), 100))
        params = tree.map_with_path(
            lambda path, a: 0.1 * jax.random.normal(next(keys), a.shape) if path.endswith("lora_up") else a, params
        )
    return base, model, params


def run(model, params):
    return jax.jit(lambda p: model.apply(p, None, X, nn.EVAL)[0])(params)


def test_at_first_it_changes_nothing_and_keeps_every_path():
    base, model, params = adapted(filled=False)
    assert np.array_equal(run(model, params), run(MODEL, base))
    old, new = tree.flatten(base), tree.flatten(params)
    assert all(new[path] is leaf for path, leaf in old.items())
    layers = {path.rpartition("/")[0] for path in new.keys() - old.keys()}
    inside = {"blocks/body/linear1", "blocks/body/mlp/gate"}
    assert layers == {"towers/first", "towers/rest/1", "head", *inside}
    assert new["blocks/body/mlp/gate/lora_down"].shape == (3, 6, 2)
    assert new["blocks/body/mlp/gate/lora_up"].shape == (3, 2, 5)
    assert tree.diff(jax.eval_shape(model.init, KEY), params) == ""
    fresh = tree.select(model.init(OTHER), nn.LORA)
    assert all(np.array_equal(new[path], leaf) for path, leaf in fresh.items())


def test_merging_is_exact_and_can_be_undone():
    base, model, params = adapted()
    plain, merged = nn.merge_lora(model, params)
    assert plain == MODEL
    assert tree.diff(base, merged) == ""
    y = run(model, params)
    assert float(jnp.abs(y - run(MODEL, base)).max()) > 0.03
    np.testing.assert_allclose(run(plain, merged), y, atol=1e-5)
    np.testing.assert_allclose(merged["head"]["w"], base["head"]["w"] + 2 * _product(params["head"]), atol=1e-6)
    back = nn.unmerge_lora(model, merged, tree.select(params, nn.LORA))
    for path, leaf in tree.flatten(params).items():
        np.testing.assert_allclose(tree.flatten(back)[path], leaf, atol=1e-6, err_msg=path)


def _product(params):
    return params["lora_down"] @ params["lora_up"]


def test_the_gradient_of_the_adapters_alone():
    """Equal to their part of the full gradient; and of the frozen weights, no gradient is in the program."""
    _, model, params = adapted()
    adapters = tree.select(params, nn.LORA)

    def loss(adapters, params):
        full = tree.map_with_path(lambda path, leaf: adapters.get(path, leaf), params)
        return jnp.sum(jnp.sin(model.apply(full, None, X, nn.EVAL)[0]))

    alone = jax.jit(jax.grad(loss))(adapters, params)
    full = jax.jit(jax.grad(lambda params: loss({}, params)))(params)
    assert alone.keys() == adapters.keys()
    for path, grad in alone.items():
        assert np.abs(grad).max() > 0, path
        np.testing.assert_allclose(grad, tree.flatten(full)[path], atol=1e-5, err_msg=path)
    square = {leaf.shape for path, leaf in tree.flatten(params).items() if path.endswith("first/w")}
    out = jax.make_jaxpr(jax.grad(loss))(adapters, params).out_avals
    assert not square & {a.shape for a in out}


def test_attention_is_adapted_and_still_generates():
    """Queries and values of every block of a scanned stack: equal when merged, whole or token by token."""
    base = nn.Stack(nn.transformer_block(8, 2, 16, kv_heads=1, causal=True, gated=True), 2)
    model = nn.lora(base, ("attention/[qv]", "mlp/*"), rank=2)
    assert from_data(to_data(model)) == model
    params = nn.add_lora(model, base.init(KEY), OTHER)
    adapters = tree.select(params, nn.LORA)
    assert {path.rpartition("/")[0] for path in adapters} == {
        *("attention/q", "attention/v", "mlp/gate", "mlp/up", "mlp/down")
    }
    assert params["attention"]["v"]["lora_up"].shape == (2, 2, 4)
    params = tree.map_with_path(lambda path, a: a + 0.1 if path.endswith("lora_up") else a, params)
    plain, merged = nn.merge_lora(model, params)
    assert plain == base
    x = jax.random.normal(jax.random.key(2), (2, 3, 8))
    want, _ = jax.jit(base.apply)(merged, None, x, nn.EVAL)
    got, _ = jax.jit(model.apply)(params, None, x, nn.EVAL)
    np.testing.assert_allclose(got, want, atol=1e-5)
    cache, step = model.init_cache(2, 3), jax.jit(model.apply)
    for t in range(3):
        y, cache = step(params, cache, x[:, t : t + 1], nn.EVAL)
        np.testing.assert_allclose(y, want[:, t : t + 1], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_are_flaxs(dtype):
    """flax has no factor: ours is 1 without alpha. float32 1e-5, float64 1e-12."""
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        layer = nn.LoRALinear(5, 4, rank=3)
        shapes = {"w": (5, 4), "b": (4,), "lora_down": (5, 3), "lora_up": (3, 4)}
        params = {k: jnp.asarray(rng.standard_normal(s).astype(dtype)) for k, s in shapes.items()}
        x, ct = (jnp.asarray(rng.standard_normal(s).astype(dtype)) for s in [(2, 5), (2, 4)])
        theirs = nnx.LoRALinear(5, 4, lora_rank=3, rngs=nnx.Rngs(0), param_dtype=params["w"].dtype)
        graph, state = nnx.split(theirs)
        names = {"w": ("kernel",), "b": ("bias",), "lora_down": ("lora", "lora_a"), "lora_up": ("lora", "lora_b")}

        def loss(params, x):
            return jnp.sum(ct * layer(params, x))

        def other(params, x):
            held = {path: params[name] for name, path in names.items()}
            flat = [(path, leaf.replace(held[path])) for path, leaf in nnx.to_flat_state(state)]
            return jnp.sum(ct * nnx.merge(graph, nnx.from_flat_state(flat))(x))

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            want = jax.jit(jax.value_and_grad(other, (0, 1)))(params, x)
        got = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
        for path, leaf in tree.flatten(got).items():
            bound = {"float32": 1e-5, "float64": 1e-12}[dtype]
            np.testing.assert_allclose(leaf, tree.flatten(want)[path], rtol=bound, atol=bound, err_msg=path)


def test_a_layer_that_builds_others_becomes_what_it_builds():
    """Its parameters are those of what it builds, so nothing else changes."""

    @dataclass(frozen=True)
    class Twice(nn.Layer):
        d: int

        def build(self):
            return nn.Chain(nn.Linear(self.d, self.d), nn.Linear(self.d, self.d))

        def children(self):
            return {"": self.build()}

        def init(self, key):
            return self.build().init(key)

        def apply(self, params, state, x, mode):
            return self.build().apply(params, state, x, mode)

    base = nn.Residual(Twice(3))
    model = nn.lora(base, "body/linear2", rank=1)
    assert model == nn.Residual(nn.Chain(linear1=nn.Linear(3, 3), linear2=nn.LoRALinear(3, 3, rank=1)))
    params = nn.add_lora(model, base.init(KEY), OTHER)
    x = jnp.ones((2, 3))
    assert np.array_equal(model.apply(params, None, x, nn.EVAL)[0], base.apply(base.init(KEY), None, x, nn.EVAL)[0])
    assert nn.map_layers(lambda path, layer: layer, base) is base


def test_nothing_matches():
    with pytest.raises(ValueError, match=r"lora adapts layers of class Linear.*'blocks/\*\*/gat'.*near it.*gate"):
        nn.lora(MODEL, "blocks/**/gat")
    with pytest.raises(ValueError, match="matches none of the 0 paths"):
        nn.lora(nn.Relu(), "**")
    with pytest.raises(ValueError, match="no LoRALinear"):
        nn.merge_lora(MODEL, MODEL.init(KEY))
    params = MODEL.init(KEY)
    with pytest.raises(ValueError, match="head/b: unexpected"):
        nn.add_lora(nn.lora(MODEL, "head"), {**params, "head": {**params["head"], "b": jnp.zeros(2)}}, KEY)


def test_bfloat16_weights_get_bfloat16_adapters():
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), nn.Linear(4, 3).init(KEY))
    model = nn.lora(nn.Linear(4, 3), "**", rank=2)
    assert {a.dtype.name for a in jax.tree.leaves(nn.add_lora(model, params, OTHER))} == {"bfloat16"}


def test_map_layers_finds_every_layer_once():
    seen = []

    def note(path, layer):
        seen.append(path)
        return layer

    assert nn.map_layers(note, MODEL) is MODEL
    assert {"linear1", "towers", "towers/rest/0", "blocks", "blocks/body/linear1", "head", ""} <= set(seen)

    @dataclass(frozen=True)
    class Fixed(nn.Pure):
        def parts(self):
            return {"inner": nn.Linear(2, 2)}

        def __call__(self, params, x):
            return self.parts()["inner"](params["inner"], x)

    with pytest.raises(TypeError, match="makes its part 'inner' itself"):
        nn.lora(Fixed(), "inner")
