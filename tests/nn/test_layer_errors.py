"""What layers say, literally, to input and definitions that cannot be; what every layer says is in
`test_layer_messages`."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dlkit import nn

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def unchecked():
    """Without the types of signatures enforced, so that dlkit's own message is what is raised, as for a user."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def message(kind, layer, params, x, mode=nn.EVAL):
    """What `layer` raises as the layer `body` of a model, compiled; the note says where."""
    model = nn.Chain(body=layer)
    with pytest.raises(kind) as error:
        jax.jit(model.apply)({"body": params}, nn.Chain(body=layer).init_state(), x, mode)
    notes = [n for n in getattr(error.value, "__notes__", []) if n.startswith("in layer")]
    return str(error.value), notes


def zeros(*shape, dtype=jnp.float32):
    return jnp.zeros(shape, dtype)


# --- axes and sizes --------------------------------------------------------------------------------------------------

RANKS = [
    (
        nn.Linear(4, 3),
        (),
        "Linear(d_in=4, d_out=3) got x of shape (): expected the last axis to have size 4 because d_in=4, got no such "
        "axis",
    ),
    (
        nn.DropBlock(0.5, 7),
        (6, 8, 3),
        "DropBlock(rate=0.5) got x of shape (6, 8, 3): expected H and W of at least 7 because block=7, got 6 and 8",
    ),
    (
        nn.PixelUnshuffle(2),
        (6, 5, 3),
        "PixelUnshuffle(factor=2) got x of shape (6, 5, 3): expected axis -2 to have a size that 2 divides because "
        "factor=2, got 5",
    ),
    (
        nn.GroupNorm(2, 4),
        (8, 4),
        "GroupNorm(groups=2, d=4) got x of shape (8, 4): expected at least 3 axes, [..., *spatial, C], because dims=2, "
        "got 2 axes; set dims to the number of spatial axes",
    ),
    (nn.Flatten(), (8, 4), "Flatten() got x of shape (8, 4): expected at least 3 axes because dims=3, got 2 axes"),
    (
        nn.Reshape((2, 2), dims=2),
        (4,),
        "Reshape(shape=(2, 2), dims=2) got x of shape (4,): expected at least 2 axes because dims=2, got 1 axis",
    ),
    (
        nn.Reshape((2, 3)),
        (5, 4),
        "Reshape(shape=(2, 3)) got x of shape (5, 4): expected 6 elements in the last 1 axes because shape=(2, 3), "
        "got 4",
    ),
]


@pytest.mark.parametrize(("layer", "shape", "want"), RANKS, ids=lambda v: str(v)[:20])
def test_wrong_rank(layer, shape, want):
    text, notes = message(ValueError, layer, layer.init(KEY), zeros(*shape))
    assert text == want
    assert notes[0].startswith(f"in layer body = {type(layer).__name__}(")


# --- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Maxout(4, 3), nn.Conv(4, 3, 1, dims=1), nn.PRelu(4)], ids=repr)
def test_weights_of_another_dtype(layer):
    text, _ = message(TypeError, layer, layer.init(KEY), zeros(2, 2, 4, dtype=jnp.bfloat16))
    assert text.endswith(
        "got x of dtype bfloat16 and weights of dtype float32: expected one dtype because nothing is promoted "
        "silently; cast one of them"
    )


REAL = [nn.LayerNorm(4), nn.MaxPool(2), nn.Gelu(), nn.Softmax(), nn.Dropout(0.5)]


@pytest.mark.parametrize("layer", REAL, ids=repr)
def test_complex_numbers_where_real_ones_are_wanted(layer):
    text, _ = message(TypeError, layer, layer.init(KEY), zeros(2, 2, 4, dtype=jnp.complex64))
    assert " got x of dtype complex64 and shape (2, 2, 4): expected floating point because " in text
    assert text.endswith("; give it the real and the imaginary part as channels")


def test_complex_weights_take_complex_numbers():
    layer = nn.Linear(4, 3)
    params = jax.tree.map(lambda p: p.astype(jnp.complex64), layer.init(KEY))
    assert layer(params, zeros(2, 4, dtype=jnp.complex64)).dtype == jnp.complex64


def test_an_id_outside_the_table_is_seen():
    layer = nn.Embedding(5, 3)
    y = layer(layer.init(KEY), jnp.array([4, 5, -1]))
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1:]).all()


# --- definitions that cannot be --------------------------------------------------------------------------------------

KERNEL = "expected a kernel of 1, 2 or 3 sizes of at least 1"
BAD = {
    "Conv(c_in=4, c_out=6, kernel=3, groups=4): expected groups that divide c_in=4 and c_out=6": lambda: nn.Conv(
        4, 6, 3, groups=4
    ),
    f"Conv(c_in=4, c_out=6, kernel=(3, 0)): {KERNEL}": lambda: nn.Conv(4, 6, (3, 0)),
    f"Conv(c_in=4, c_out=6, kernel=3, dims=4): {KERNEL}": lambda: nn.Conv(4, 6, 3, dims=4),
    "GroupNorm(groups=3, d=4): expected groups that divide d=4": lambda: nn.GroupNorm(3, 4),
    "Dropout wants a rate in [0, 1], the probability of dropping, got 1.5": lambda: nn.Dropout(1.5),
    "Maxout(d_in=4, d_out=3, pieces=0): expected at least one piece": lambda: nn.Maxout(4, 3, pieces=0),
    "Flatten(dims=0): expected dims of at least 1": lambda: nn.Flatten(0),
}


@pytest.mark.parametrize("want", BAD, ids=range(len(BAD)))
def test_definitions_are_checked(want):
    with pytest.raises(ValueError) as error:
        BAD[want]()
    assert str(error.value) == want


# --- a tree where an array belongs, and the carries of other libraries -----------------------------------------------


def test_a_graph_where_an_array_belongs():
    graph = nn.functional.Graph.from_edges([0], [1], np.ones((3, 4), np.float32))
    text, notes = message(TypeError, nn.Relu(), {}, graph)
    assert text.startswith("Relu() got x of type Graph of nodes, ")
    assert text.endswith("expected an array; apply it to the nodes, nn.OnNodes(layer)")
    assert notes[0].startswith("in layer body = Relu()")


def test_a_quantized_where_an_array_belongs():
    quantized = nn.Quantized(zeros(2, 4), zeros(2), zeros(2, dtype=jnp.int32))
    layer = nn.Linear(4, 2)
    text, _ = message(TypeError, layer, layer.init(KEY), quantized)
    assert text == (
        "Linear(d_in=4, d_out=2) got x of type Quantized of y, loss, ids: expected an array; take one of its arrays"
    )


def test_a_carry_as_a_tuple():
    layer, pair = nn.LSTM(3, 4), (zeros(2, 4), zeros(2, 4))
    with pytest.raises(TypeError, match=r"LSTM.* got a carry of type tuple: expected a dict of 'h' and 'c'; start"):
        layer.apply(layer.init(KEY), pair, zeros(2, 5, 3), nn.EVAL)


def test_the_carry_of_one_direction_for_both():
    one = nn.LSTM(3, 4)
    layer = nn.Bidirectional(one)
    with pytest.raises(ValueError, match=r"Bidirectional got a state with \['c', 'h'\]: expected 'forward' and"):
        layer.apply(layer.init(KEY), one.init_cache(2, 5), zeros(2, 5, 3), nn.EVAL)


def test_the_carry_of_one_layer_for_several():
    one = nn.LSTM(4, 4)
    layer = nn.DeepRNN(one, 2)
    with pytest.raises(ValueError, match=r"DeepRNN\(depth=2\) got a state of type dict that is not {'layers': 2 "):
        layer.apply(layer.init(KEY), one.init_cache(2, 5), zeros(2, 5, 4), nn.EVAL)
