"""Definitions to plain data and back: equal for every public class, and nothing outside the table."""

import dataclasses
import json
import tomllib

import jax.numpy as jnp
import pytest

from dlkit import losses, models, nn, optim
from dlkit.config import ConfigError, from_data, to_data
from dlkit.config.definitions import table
from dlkit.config.toml import dumps
from dlkit.nn import initializers as init

# What the fields without a default are given, by class name, so that every class in the table has an instance.
ARGUMENTS = {
    "AdaptiveAvgPool": (2,), "AdaptiveMaxPool": ((None, 2),), "Upsample": (2,), "PixelShuffle": (2,),
    "PixelUnshuffle": (2,), "ChannelShuffle": (2,), "Pad": (((1, 2), (0, 1)), "reflect"), "Crop": (1,),
    "Permute": ((1, 0),), "PatchEmbed": (3, 8, 4), "MaskedConv": (3, 6, 3, "A", 3),
    "ConvTranspose": (4, 6, 3), "DepthwiseConv": (4, 3), "SeparableConv": (4, 6, 3),
    "Linear": (3, 2), "Conv": (4, 6, 3), "MaxPool": (2,), "AvgPool": (2,), "Embedding": (5, 3), "BatchNorm": (4,),
    "LayerNorm": (4,), "RMSNorm": (4,), "GroupNorm": (2, 4), "Dropout": (0.5,), "Reshape": ((2, 2),),
    "Threshold": (0.5, -1.0), "Maxout": (4, 3), "FeedForward": (4, 8), "GatedFeedForward": (4, 8),
    "LoRALinear": (4, 3), "MoE": (4, 8, 2), "Einsum": ("...d,dh->...h", (3, 2)),
    "Highway": (nn.Linear(2, 2), nn.Linear(2, 2)),
    "TransformerBlock": (nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2), nn.LayerNorm(2)),
    "MultiHeadAttention": (8, 2), "AdditiveAttention": (4, 6, 8), "Alibi": (4,), "RelativeBias": (4,),
    "LearnedPositions": (8, 4), "GatedLinear": (4, 3), "Stack": (nn.Linear(3, 3), 2),
    "InstanceNorm": (4,), "LocalResponseNorm": (5,), "WeightNorm": (nn.Linear(3, 2),),
    "Standardize": (3,), "Film": (3, 4), "ConditionalNorm": (nn.LayerNorm(4, affine=False), nn.Film(3, 4)),
    "SqueezeExcite": (4, 2), "LayerScale": (4,), "BasicBlock": (4, 8), "Bottleneck": (4, 8), "ConvNeXtBlock": (4,),
    "InvertedResidual": (4, 8), "VectorQuantizer": (8, 2), "VectorQuantizerEMA": (8, 2),
    "SpectralNorm": (nn.Linear(3, 2),), "WeightStandardized": (nn.Conv(2, 3, 3),), "SpatialDropout": (0.2,),
    "AlphaDropout": (0.2,), "FeatureAlphaDropout": (0.2,), "GaussianDropout": (0.2,), "GaussianNoise": (0.2,),
    "DropBlock": (0.2,), "DropPath": (0.2,), "DropConnect": (nn.Linear(3, 2), 0.2),
    "NTM": (3, 2), "GCNConv": (4, 3), "SAGEConv": (4, 3), "GATConv": (4, 3, 2), "GATv2Conv": (4, 3), "GraphNorm": (4,),
    "GINConv": (nn.Linear(4, 3),), "GINEConv": (nn.Linear(4, 3), nn.Linear(2, 4)), "OnNodes": (nn.Relu(),),
    "MessagePassing": (nn.Linear(8, 3), nn.Linear(7, 3)), "GraphNetwork": (nn.Linear(8, 3), None, nn.Linear(7, 3)),
    "SGConv": (4, 3), "EdgeConv": (nn.Linear(8, 3),), "DeepSets": (nn.Linear(4, 3), nn.Linear(3, 2)),
    "ConvLSTM": (2, 4, 3), "LRU": (3, 4), "TCN": (3, (4, 5)), "TCNBlock": (3, 4),
    "VariationalDropout": (nn.LSTM(3, 4), 0.2, 0.3), "Zoneout": (nn.LSTM(3, 4), 0.1),
    "RNN": (3, 4), "GRU": (3, 4), "LSTM": (3, 4), "Bidirectional": (nn.GRU(3, 4),), "DeepRNN": (nn.LSTM(3, 4), 2),
    "Residual": (nn.Linear(3, 3),), "Chain": (nn.Linear(3, 2), nn.Relu()),
    "initializers.Constant": (0.5,), "initializers.Uniform": (-0.1, 0.2), "initializers.Normal": (0.02,),
    "initializers.TruncatedNormal": (0.02,), "initializers.Sparse": (0.1,),
    "optim.Chain": ((optim.Scale(2.0), optim.Identity()),), "optim.Scale": (2.0,), "optim.Clip": (1.0,),
    "optim.ClipByGlobalNorm": (1.0,), "optim.Masked": (optim.Scale(2.0), ("**/w",)), "optim.Trace": (0.9,),
    "optim.ScaleByLearningRate": (optim.CosineDecay(1e-3, 100),),
    "optim.ScaleBySchedule": (optim.ConstantSchedule(2.0),),
    "optim.ConstantSchedule": (0.1,), "optim.PolynomialSchedule": (1.0, 0.0, 2.0, 10),
    "optim.ExponentialDecay": (1.0, 10, 0.5), "optim.CosineDecay": (1.0, 10),
    "optim.JoinSchedules": ((optim.ConstantSchedule(1.0), optim.CosineDecay(1.0, 5)), (3,)),
    "optim.PiecewiseConstant": (1.0, {3: 0.5}), "optim.PiecewiseInterpolate": ("cosine", 1.0, {3: 0.5, 7: 0.1}),
    "models.PadShortcut": (2, 4, 2), "models.Branches": (nn.Identity(), nn.Linear(3, 2)), "models.ClassToken": (4,),
    "models.AuxHeads": ((nn.Linear(3, 2), nn.Linear(2, 2)), (nn.Linear(2, 2),)), "models.ImagePositions": (5, 4),
    "models.NodeOutputs": (nn.GCNConv(4, 3),), "models.VAE": (nn.Linear(3, 4), nn.Linear(2, 3), 2),
}  # fmt: skip

WRAPPED = (optim.Scale(2.0),)
ARGUMENTS |= {
    "optim.MultiSteps": (*WRAPPED, 2), "optim.ApplyIfFinite": (*WRAPPED, 3), "optim.Flatten": WRAPPED,
    "optim.DynamicLossScale": (*WRAPPED, optim.LossScale(4.0)), "optim.WithReport": WRAPPED,
    "optim.WithExtraArgsSupport": WRAPPED, "optim.Lookahead": (*WRAPPED, 5, 0.5), "optim.Ema": (0.9,),
    "optim.NamedChain": ((("a", optim.Scale(2.0)), ("b", optim.Identity())),),
    "optim.Partition": ({"head/**": optim.Scale(2.0), "**": optim.Identity()},),
    "optim.SelectiveTransform": {"optimizer": optim.Scale(2.0), "freeze_mask": ("**/w",)},
    "optim.ScaleByDepth": (0.5, ("embed/**", "**")),
}  # fmt: skip
ARGUMENTS |= {
    "optim.AdaptiveGradClip": (0.1,), "optim.ClipByBlockRms": (1.0,), "optim.AddNoise": (0.1, 0.5, 3),
    "optim.SplitRealAndImaginary": WRAPPED, "optim.ScaleByDoG": (("distance", 1e-3),), "optim.ScaleByMadgrad": (0.1,),
    "optim.Mechanic": WRAPPED, "optim.DifferentiallyPrivateAggregate": (1.0, 0.5, 3), "optim.SAM": (*WRAPPED, *WRAPPED),
    "optim.ScheduleFree": (*WRAPPED, 0.1), "optim.ScaleByRprop": (0.1,), "optim.Anneal": (1.0, 0.1, 10),
    "optim.MultiplicativeSchedule": (1.0, optim.ConstantSchedule(0.9), 5),
    "optim.ProductSchedule": ((optim.ConstantSchedule(0.9), optim.CosineDecay(1.0, 5)),), "optim.Cyclic": (0.1, 1.0),
    "optim.OneCycle": (0.1, 1.0, 0.01, 20), "optim.PowerLawDecay": (1.0,), "optim.TanhDecay": (1.0, 10),
    "optim.CosineAnnealing": (1.0, 5), "optim.CosineRestarts": (1.0, 5), "optim.ScaleByBacktrackingLinesearch": (5,),
    "optim.ScaleByNaturalGradient": ("gaussian",), "optim.ScaleByZoomLinesearch": (5,), "optim.Cautious": WRAPPED,
    "optim.CmaEs": (0.5,),
}  # fmt: skip


def parts(definition):
    return {field.name: getattr(definition, field.name) for field in dataclasses.fields(definition) if field.init}


ARGUMENTS |= {
    "models.Decoder": parts(models.llama(5, 4, 2, 1)), "models.Bert": parts(models.bert(5, 4, 4, 2, 1)),
    "models.T5": parts(models.t5(5, 4, 2, 1)), "models.AudioEncoder": parts(models.whisper_encoder(3, 4, 4, 2, 1)),
    "models.Bias": (4,), "models.Diffusion": (nn.Linear(2, 2), (2,), models.NoiseSchedule("cosine", 9)),
    "models.TimeUNet": parts(models.time_unet(1, (2,), groups=1)),
    "models.TimeBlock": parts(models.TimeBlock.of(2, 4, 3, 1)),
    "models.PixelAttention": (nn.GroupNorm(1, 2), nn.MultiHeadAttention(2, 1)),
    "models.MaskedLM": (nn.Linear(3, 2), 4), "models.Translator": (nn.Linear(3, 2),),
    "models.Conditioned": (nn.Linear(3, 2),), "models.Seq2Seq": parts(models.seq2seq(7, 4)),
    "models.MaskedHead": (nn.Linear(4, 4), nn.Gelu(), nn.LayerNorm(4), models.Bias(5)),
}  # fmt: skip
FUNCTIONS = {  # that hold a function have no form as data
    "optim.Stateless": (jnp.sign,), "optim.StatelessWithTreeMap": (jnp.sign,), "optim.Snapshot": ("norm", jnp.sign),
    "optim.Monitor": ((("norm", jnp.sign),),), "optim.MeasureWithEma": (jnp.sign, 0.9), "optim.Project": (jnp.sign,),
    "optim.Proximal": (optim.prox_l1, 0.1, 0.1), "optim.ConditionallyMask": (*WRAPPED, jnp.sign),
    "optim.ConditionallyTransform": (*WRAPPED, jnp.sign),
    "optim.InjectHyperparams": (optim.sgd, (), (("learning_rate", 0.1),), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_holds_a_function_has_no_form_as_data(name):
    with pytest.raises(TypeError, match="has no form as data: expected a public definition"):
        to_data(table()[name](*FUNCTIONS[name]))


def instances():
    for name, cls in table().items():
        if name in FUNCTIONS:
            continue
        required = [
            f for f in dataclasses.fields(cls) if f.init and f.default is f.default_factory is dataclasses.MISSING
        ]
        if required or name in ARGUMENTS:
            assert name in ARGUMENTS, f"{name} needs a line in ARGUMENTS: {[f.name for f in required]}"
        given = ARGUMENTS.get(name, ())
        yield name, cls(**given) if isinstance(given, dict) else cls(*given)


@pytest.mark.parametrize(("name", "definition"), list(instances()), ids=lambda v: v if isinstance(v, str) else "")
def test_round_trip_of_every_public_class(name, definition):
    data = to_data(definition)
    assert data["type"] == name
    assert from_data(data) == definition
    assert from_data(json.loads(json.dumps(data))) == definition
    assert from_data(tomllib.loads(dumps({"d": data}))["d"]) == definition


@pytest.mark.parametrize(
    "definition",
    [
        models.resnet20(),
        models.cnn((8, 8, 1), 10, (4, 8), hidden=5, dropout=0.5, norm="batch"),
        models.mlp((5, 4, 3), "silu", 0.1, "layer"),
        models.linear(4, 2),
        nn.Conv(4, 6, (3, 1), stride=(2, 1), padding=((0, 1), (2, 3)), bias=False, w_init=init.Orthogonal()),
        nn.Linear(3, 2, w_init=init.he_normal(), b_init=init.Constant(0.1)),
        nn.Stack(nn.Residual(nn.Chain(nn.Linear(3, 3), out=nn.Dropout(0.1))), 3, remat="full", scan=False),
        optim.adamw(optim.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100), mask="**/w"),
        optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.1, momentum=0.9, nesterov=True)),
        optim.rmsprop(1e-3, centered=True, momentum=0.9),
        optim.adam(1e-3, mu_dtype=jnp.bfloat16),
        optim.cosine_onecycle_schedule(100, 0.1),
        losses.elastic_net(1e-4, 0.5, over=["**/w"]),
    ],
    ids=lambda d: type(d).__name__,
)
def test_round_trip_of_what_people_write(definition):
    assert from_data(json.loads(json.dumps(to_data(definition)))) == definition


def test_every_public_layer_initializer_transform_and_schedule_is_in_the_table():
    classes = set(table().values())
    for module in (nn, init, optim, losses):
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(
                value, nn.Layer | init.Initializer | optim.Transform | optim.Schedule
            ):
                abstract = value in (nn.Layer, nn.Pure, init.Initializer, optim.Transform, optim.Schedule)
                assert abstract or value in classes, name


def test_data_is_short_and_defaults_stay_out():
    assert to_data(nn.Chain(nn.Linear(4, 2), head=nn.Relu())) == {
        "type": "Chain",
        "layers": [{"name": "linear1", "type": "Linear", "d_in": 4, "d_out": 2}, {"name": "head", "type": "Relu"}],
    }
    assert to_data(nn.MaxPool(2, stride=1)) == {"type": "MaxPool", "window": 2, "stride": 1}


def test_layers_without_names_are_counted():
    layers = [{"type": "Linear", "d_in": 4, "d_out": 4}, {"type": "Relu"}, {"type": "Relu"}]
    assert from_data({"type": "Chain", "layers": layers}) == nn.Chain(nn.Linear(4, 4), nn.Relu(), nn.Relu())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"type": "Linaer", "d_in": 1, "d_out": 2}, ["'Linear'"]),
        ({"type": "os.system", "command": "true"}, ["expected a `type`", "os.system"]),
        ({"type": "dlkit.nn.Linear", "d_in": 1, "d_out": 2}, ["dlkit.nn.Linear"]),
        ({"type": 3}, ["the integer 3"]),
        ({"d_in": 3}, ["expected a `type`"]),
        ({"type": "Linear", "d_in": 1, "dout": 2}, ["no field 'dout'", "'d_out'"]),
        ({"type": "Linear", "d_in": 1}, ["d_out"]),
        ({"type": "Linear", "d_in": "1", "d_out": 2}, ["definition.d_in", "a whole number", '"1"']),
        ({"type": "Linear", "d_in": True, "d_out": 2}, ["a whole number", "true"]),
        ({"type": "Linear", "d_in": 1.0, "d_out": 2}, ["a whole number"]),
        ({"type": "Linear", "d_in": 1, "d_out": 2, "w_init": {"type": "Relu"}}, ["w_init"]),
        ({"type": "Linear", "d_in": 1, "d_out": 2, "w_init": 0.5}, ["w_init"]),
        ({"type": "Dropout", "rate": 1.5}, ["Dropout", "1.5"]),
        ({"type": "Chain", "layers": [{"type": "Relu", "name": "a"}, {"type": "Relu"}]}, ["layers[1]"]),
        ({"type": "Chain", "layers": [{"type": "Relu", "name": "a"}] * 2}, ["layers[1].name"]),
        ({"type": "Chain", "layers": [{"type": "optim.Identity"}]}, ["expected a layer"]),
        ({"type": "Chain", "layers": 3}, ["expected a list"]),
        ({"type": "Chain", "layer": []}, ["'layers'"]),
        ({"type": "Residual", "body": {"type": "initializers.Zeros"}}, ["body"]),
        ({"type": "Stack", "block": {"type": "Relu"}, "depth": 2, "remat": "all"}, ["remat"]),
        (object(), ["expected a table"]),
    ],
)  # fmt: skip
def test_bad_data_is_a_config_error(data, words):
    with pytest.raises(ConfigError) as info:
        from_data(data)
    for word in words:
        assert word in str(info.value)


def test_depth_is_bounded():
    data = {"type": "Relu"}
    for _ in range(500):
        data = {"type": "Residual", "body": data}
    with pytest.raises(ConfigError, match="levels deep"):
        from_data(data)


@dataclasses.dataclass(frozen=True)
class Mine(nn.Pure):
    d: int = 3


def test_what_has_no_form_as_data():
    for value in (Mine(), nn.Residual(Mine()), optim.masked(optim.Scale(1.0), lambda params: params), jnp.ones(2)):
        with pytest.raises(TypeError, match="has no form as data"):
            to_data(value)
