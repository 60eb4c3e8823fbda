"""The contract: names key the draws, jit sees modes, errors say where, a stack is the unrolled model."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import compiling

from dlkit import functional, tree
from dlkit.nn import (
    EVAL,
    Chain,
    Dropout,
    Identity,
    LayerNorm,
    Linear,
    Mode,
    Pure,
    Relu,
    Residual,
    Stack,
    is_pure,
    training,
)

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(9), (5, 8))
BLOCK = Residual(Chain(LayerNorm(8), Linear(8, 16), Relu(), Dropout(0.3), Linear(16, 8)))


def leaves_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# --- modes -----------------------------------------------------------------------------------------------------------


def test_plain_jit_compiles_once_for_each_mode():
    model = Chain(Linear(8, 8), Dropout(0.5))
    params, traces = model.init(KEY), []

    @jax.jit
    def run(params, x, mode):
        traces.append(mode.train)
        return model.apply(params, None, x, mode)[0]

    for i in range(3):
        run(params, X, training(jax.random.key(i)))
        run(params, X, EVAL)
    assert traces == [True, False]


def test_split_is_at():
    mode = training(KEY)
    for i, key in enumerate(mode.split(3).key):
        assert jnp.array_equal(jax.random.key_data(key), jax.random.key_data(mode.at(i).key))
    assert EVAL.split(3) is EVAL
    assert EVAL.at("child") is EVAL


def test_draws_are_keyed_by_name():
    mode = training(KEY)
    bits = {tuple(jax.random.key_data(k).tolist()) for k in (mode.rng("a"), mode.rng("b"), mode.at("a").rng("a"))}
    assert len(bits) == 3
    assert jnp.array_equal(jax.random.key_data(mode.rng("a")), jax.random.key_data(training(KEY).rng("a")))


def test_training_wants_a_key_only_where_something_is_drawn(unchecked):
    quiet = Chain(Linear(8, 4), Relu())
    quiet.apply(quiet.init(KEY), None, X, training(None))
    noisy = Chain(Linear(8, 4), body=Residual(Dropout(0.5)))
    with pytest.raises(ValueError, match=r"needs a key in training.*pass training\(key\)") as error:
        noisy.apply(noisy.init(KEY), None, X, training(None))
    assert error.value.__notes__[0] == "in layer body/body = Dropout(rate=0.5), input float32[5,4]"
    with pytest.raises(TypeError, match=r"write training\(jax.random.key\(3\)\)"):
        training(3)  # pyright: ignore[reportArgumentType]


def test_mode_is_required_and_must_be_one():
    model = Chain(Dropout(0.5))
    with pytest.raises(TypeError, match="mode"):
        model.apply(model.init(KEY), None, X)  # pyright: ignore[reportCallIssue]
    for wrong in (True, None, KEY):
        with pytest.raises(TypeError, match="wants a Mode as its fourth argument"):
            model.apply(model.init(KEY), None, X, wrong)  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="wants a Mode as its fourth argument"):
            Chain(Linear(8, 4)).apply(Chain(Linear(8, 4)).init(KEY), None, X, mode=wrong)  # pyright: ignore
    with pytest.raises(TypeError, match="unexpected keyword argument 'deterministic'"):
        model.apply(model.init(KEY), None, X, EVAL, deterministic=True)  # pyright: ignore[reportCallIssue]


# --- names -----------------------------------------------------------------------------------------------------------


def test_inserting_a_layer_changes_no_other_layers_weights_or_masks():
    before = Chain(stem=Linear(8, 8), drop=Dropout(0.5), head=Linear(8, 4))
    after = Chain(stem=Linear(8, 8), extra=Dropout(0.2), middle=Linear(8, 8), drop=Dropout(0.5), head=Linear(8, 4))
    p, q = before.init(KEY), after.init(KEY)
    assert leaves_equal(p["stem"], q["stem"])
    assert leaves_equal(p["head"], q["head"])
    assert not jnp.array_equal(q["middle"]["w"], q["stem"]["w"])


def test_inserting_a_layer_changes_no_other_layers_mask():
    ones = jnp.ones((5, 8))
    before = Chain(drop=Dropout(0.5), tail=Dropout(0.2))
    after = Chain(first=Dropout(0.0), extra=Identity(), drop=Dropout(0.5), more=Dropout(0.0), tail=Dropout(0.2))
    masks = [model.apply(model.init(KEY), None, ones, training(KEY))[0] for model in (before, after)]
    assert jnp.array_equal(*masks)
    renamed = Chain(other=Dropout(0.5), tail=Dropout(0.2))
    assert not jnp.array_equal(renamed.apply(renamed.init(KEY), None, ones, training(KEY))[0], masks[0])


def test_chain_names(unchecked):
    chain = Chain(Linear(8, 8), Relu(), Linear(8, 8), head=Linear(8, 2))
    assert chain.names == ("linear1", "relu1", "linear2", "head")
    assert chain["head"] == Linear(8, 2)
    assert len(chain) == len(list(chain)) == 4
    with pytest.raises(KeyError, match="no layer 'tail'; it has linear1"):
        chain["tail"]
    with pytest.raises(ValueError, match="two layers called 'linear1'"):
        Chain(Linear(8, 8), linear1=Linear(8, 8))
    with pytest.raises(TypeError, match="Chain wants layers, got function1=<function relu"):
        Chain(functional.relu)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Towers(Pure):
    towers: tuple[Linear, ...]
    head: Linear

    def __call__(self, params, x):
        h = [tower(p, x) for tower, p in zip(self.towers, params["towers"], strict=True)]
        return self.head(params["head"], jnp.concatenate(h, axis=-1))


def test_init_follows_from_the_fields_tuples_included():
    model = Towers((Linear(8, 3), Linear(8, 3)), Linear(6, 2))
    params = model.init(KEY)
    assert list(tree.flatten(params)) == ["head/b", "head/w", "towers/0/b", "towers/0/w", "towers/1/b", "towers/1/w"]
    assert not jnp.array_equal(params["towers"][0]["w"], params["towers"][1]["w"])
    assert model(params, X).shape == (5, 2)
    assert model.init_state() is None


# --- stacks ----------------------------------------------------------------------------------------------------------


def loss_and_grads(model, params, mode):
    @jax.jit
    def run(params, x):
        def loss(params, x):
            y, _ = model.apply(params, None, x, mode)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    return run(params, X)


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_a_stack_is_bit_equal_to_the_unrolled_model(remat):
    scanned = Stack(BLOCK, 3, remat=remat)
    params = scanned.init(KEY)
    assert leaves_equal(params, replace(scanned, scan=False).init(KEY))

    @dataclass(frozen=True)
    class ByHand(Pure):  # three separate blocks, each with its own slice of the parameters
        def __call__(self, params, x):
            for i in range(3):
                x, _ = BLOCK.apply(jax.tree.map(lambda p, i=i: p[i], params), None, x, training(KEY).at(i))
            return x

        def init(self, key):
            return params

    for i in range(3):
        one = jax.tree.map(lambda p, i=i: p[i], params)
        assert leaves_equal(one, BLOCK.init(jax.random.fold_in(KEY, i)))
    want = loss_and_grads(ByHand(), params, training(KEY))
    for model in (scanned, replace(scanned, scan=False)):
        (_, y), grads = loss_and_grads(model, params, training(KEY))
        assert jnp.array_equal(y, want[0][1])
        if remat == "none":  # what XLA fuses across unrolled blocks may round the backward pass differently
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), grads, want[1])
        else:
            assert leaves_equal(grads, want[1])


def test_a_scanned_stack_holds_its_block_once():
    def size(depth):
        model = Stack(BLOCK, depth)
        params = jax.eval_shape(model.init, KEY)
        return len(str(jax.make_jaxpr(lambda p: model.apply(p, None, X, training(KEY))[0])(params)))

    assert size(48) <= 1.05 * size(4)


def test_full_remat_keeps_only_the_blocks_inputs():
    def kept(remat):
        """Shapes of the activations that the backward pass of six blocks keeps: [6, 5, ...], six inputs of 5 rows."""
        model = Stack(BLOCK, 6, remat=remat)
        params = model.init(KEY)
        _, pullback = jax.vjp(lambda p, x: model.apply(p, None, x, training(KEY))[0], params, X)
        return sorted(leaf.shape for leaf in jax.tree.leaves(pullback) if leaf.shape[:2] == (6, 5))

    assert kept("full") == [(6, 5, 8)]
    assert len(kept("none")) > len(kept("dots")) > 1


def test_stacks_of_what_remembers():
    from dlkit.nn import BatchNorm

    model = Stack(Chain(Linear(8, 8), BatchNorm(8)), 3)
    params, state = model.init(KEY), model.init_state()
    assert {p: a.shape for p, a in tree.flatten(state).items()} == {
        "batch_norm1/mean": (3, 8),
        "batch_norm1/var": (3, 8),
    }
    scanned = jax.jit(model.apply)(params, state, X, training(KEY))
    unrolled = jax.jit(replace(model, scan=False).apply)(params, state, X, training(KEY))
    np.testing.assert_allclose(scanned[0], unrolled[0], rtol=1e-5, atol=1e-6)
    assert tree.diff(state, scanned[1]) == tree.diff(state, unrolled[1]) == ""
    assert not np.allclose(scanned[1]["batch_norm1"]["mean"][0], scanned[1]["batch_norm1"]["mean"][1])


def test_bad_stacks_are_refused(unchecked):
    model = Chain(blocks=Stack(Linear(8, 4), 2))
    with pytest.raises(ValueError, match=r"Linear\(d_in=8, d_out=4\) makes another .*\s.*\[5,8\], got float32\[5,4\]"):
        model(model.init(KEY), X)
    with pytest.raises(ValueError, match="depth of at least 1, got 0"):
        Stack(BLOCK, 0)
    with pytest.raises(ValueError, match="remat='some'"):
        Stack(BLOCK, 2, remat="some")  # pyright: ignore[reportArgumentType]


def test_definitions_that_are_no_values_are_refused(unchecked):
    @dataclass
    class Open(Pure):
        inner: Linear

        def __call__(self, params, x):
            return self.inner(params["inner"], x)

    model = Open(Linear(8, 8))
    with pytest.raises(TypeError, match=r"Open is not hashable.*make it @dataclass\(frozen=True\)"):
        model(model.init(KEY), X)
    for layers in ([Linear(8, 3)], (Linear(8, 3), None)):
        with pytest.raises(TypeError, match=r"Towers\.towers is a (list|tuple) with layers in it"):
            Towers(layers, Linear(3, 2)).init(KEY)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="a layer called 'a/b': expected an identifier"):
        Chain(**{"a/b": Linear(8, 8)})
    assert Towers((), Linear(3, 2)).init(KEY)["towers"] == ()

    class Plain(Pure):
        pass

    with pytest.raises(TypeError, match="Plain is no dataclass: decorate it"):
        Plain().init(KEY)


def test_shards_are_no_mistake(unchecked):
    """Inside `shard_map` a layer sees a slice of its parameters."""
    layer = Linear(8, 6)
    params = layer.init(KEY)
    mesh = jax.make_mesh((1,), ("m",))

    def shard(params, x):
        half = {"w": params["w"][:, :3], "b": params["b"][:3]}
        return layer(half, x)

    spec = jax.sharding.PartitionSpec()
    y = jax.shard_map(shard, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(params, X)
    np.testing.assert_allclose(y, layer(params, X)[:, :3], rtol=1e-6)


def test_residual_names_branches_that_do_not_add():
    model = Residual(Linear(8, 4))
    with pytest.raises(ValueError, match=r"shapes \(5, 8\) \(shortcut\) and \(5, 4\) \(body\)"):
        model(model.init(KEY), X)
    model = Residual(Linear(8, 4), shortcut=Linear(8, 4))
    params = model.init(KEY)
    want = model.body(params["body"], X) + model.shortcut(params["shortcut"], X)  # pyright: ignore
    np.testing.assert_array_equal(model(params, X), want)


def test_only_what_is_pure_is_called():
    assert is_pure(Chain(Linear(8, 8), Residual(Stack(Linear(8, 8), 2))))
    model = Chain(Linear(8, 8), body=Residual(Dropout(0.1)))
    assert not is_pure(model)
    with pytest.raises(TypeError, match=r"Chain is not pure because of body = Residual\(body=Dropout"):
        model(model.init(KEY), X)


# --- errors and names ------------------------------------------------------------------------------------------------

MODEL = Chain(stem=Linear(8, 8), blocks=Stack(BLOCK, 2), head=Linear(8, 3))


def raises(params, x, kind=ValueError):
    with pytest.raises(kind) as error:
        jax.jit(MODEL.apply)(params, None, x, EVAL)
    return str(error.value), [n for n in error.value.__notes__ if n.startswith("in layer")]


def test_errors_carry_the_path_and_the_shapes():
    params = MODEL.init(KEY)
    text, notes = raises(params, X[:, :5])
    assert text == (
        "Linear(d_in=8, d_out=8) got x of shape (5, 5): expected the last axis to have size 8 because d_in=8, got 5"
    )
    assert notes == ["in layer stem = Linear(d_in=8, d_out=8), input float32[5,5]"]

    missing = {**params, "head": {"w": params["head"]["w"]}}
    assert raises(missing, X)[0].splitlines() == [
        "Chain got parameters that Chain.init does not make:",
        "  head/b: missing, expected float32[3] because head is Linear(d_in=8, d_out=3)",
    ]
    transposed = {**params, "head": {**params["head"], "w": params["head"]["w"].T}}
    assert raises(transposed, X)[0].splitlines()[1:] == [
        "  head/w: expected float32[8,3] because head is Linear(d_in=8, d_out=3), got float32[3,8] "
        "(its axes are permuted: transpose it)",
    ]
    unexpected = {**params, "head": {**params["head"], "bias": params["head"]["b"]}}
    assert "  head/bias: unexpected float32[3]" in raises(unexpected, X)[0]
    integer = {**params, "head": {**params["head"], "b": jnp.zeros(3, jnp.int32)}}
    assert "head/b: expected float32[3]" in raises(integer, X)[0]
    text, notes = raises(params, X.astype(jnp.int32), TypeError)
    assert "got x of dtype int32 and shape (5, 8): expected floating point" in text
    assert notes == ["in layer stem = Linear(d_in=8, d_out=8), input int32[5,8]"]


def test_errors_inside_a_stack_carry_the_whole_path():
    model = Chain(blocks=Stack(Residual(Chain(Linear(8, 8), Linear(6, 8))), 2))
    with pytest.raises(ValueError, match="d_in=6") as error:
        model(model.init(KEY), X)
    assert error.value.__notes__[0].startswith("in layer blocks/body/linear2 = Linear(d_in=6, d_out=8)")


def test_one_definition_in_two_places_is_told_apart():
    norm = Linear(8, 8)
    model = Chain(first=norm, second=norm)
    params = model.init(KEY)
    bad = {"first": params["first"], "second": {"w": params["second"]["w"][:4], "b": params["second"]["b"]}}
    with pytest.raises(ValueError, match=r"second/w: expected float32\[8,8\] because second is Linear"):
        model(bad, X)


def test_profiles_show_the_path():
    params = MODEL.init(KEY)
    text = jax.jit(MODEL.apply).lower(params, None, X, training(KEY)).as_text(debug_info=True)
    assert "Chain/stem/" in text
    assert "Chain/head/" in text
    hlo = jax.jit(MODEL.apply).lower(params, None, X, training(KEY)).compile().as_text()
    assert hlo is not None
    assert "body/linear1/dot_general" in hlo


def test_a_layer_that_computes_nothing_says_so():
    @dataclass(frozen=True)
    class Empty(Pure):
        d: int = 1

    with pytest.raises(TypeError, match="Empty does not say what it computes: give it a `__call__`"):
        Empty()({}, X)


def test_a_state_of_another_model_is_refused():
    from dlkit.nn import BatchNorm

    model = Chain(Linear(8, 8), BatchNorm(8))
    other = Chain(Linear(8, 8), norm=BatchNorm(4)).init_state()
    for state in (other, {}):
        with pytest.raises(ValueError, match=r"batch_norm1/mean: missing, expected float32\[8\] because batch_norm1"):
            model.apply(model.init(KEY), state, x=X, mode=EVAL)


def test_state_is_asked_for():
    from dlkit.nn import BatchNorm

    model = Chain(Linear(8, 8), BatchNorm(8))
    with pytest.raises(ValueError, match=r"remembers something.*got state None.*Chain\.init_state\(\)"):
        model.apply(model.init(KEY), None, X, EVAL)


def test_no_leaks_and_no_reuse():
    with jax.checking_leaks(), jax.debug_key_reuse(True):
        params = MODEL.init(KEY)
        jax.jit(jax.grad(lambda p: MODEL.apply(p, None, X, training(KEY))[0].sum()))(params)


DEVICES = """
import hashlib, jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from dlkit.nn import Chain, Dropout, Linear, Stack, training
model = Chain(Linear(8, 16), Dropout(0.5), blocks=Stack(Chain(Linear(16, 16), Dropout(0.5)), 2))
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
rows, all_ = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
params = jax.jit(model.init, out_shardings=all_)(jax.random.key(0))
x = jax.device_put(np.ones((16, 8), np.float32), rows)
y, _ = jax.jit(model.apply)(params, None, x, training(jax.random.key(1)))
digest = hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in jax.tree.leaves(params)))
print(jax.device_count(), digest.hexdigest(), hashlib.sha256((np.asarray(y) == 0).tobytes()).hexdigest())
"""


def test_masks_and_weights_are_the_same_on_1_and_on_8_devices():
    outputs = []
    for n in (1, 8):
        env = {**os.environ, "XLA_FLAGS": compiling.devices(n), "JAX_PLATFORMS": "cpu"}
        run = subprocess.run([sys.executable, "-c", DEVICES], env=env, capture_output=True, text=True, check=True)
        outputs.append(run.stdout.split())
    assert [o[0] for o in outputs] == ["1", "8"]
    assert outputs[0][1:] == outputs[1][1:]


def test_modes_are_values():
    mode = Mode(None, True)
    assert jax.tree.leaves(mode) == []
    assert hash(EVAL) == hash(Mode(None, False))
