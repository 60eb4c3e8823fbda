"""The models that a configuration can name, each a strict record with the options of its recipe."""

from typing import Annotated, Any, Literal

from pydantic import Field

from dlkit.config.parts import Activation, NotNegative, Rate, Section, Width, Widths
from dlkit.nn.layer import Layer

__all__ = ["ON_PAIRS", "ON_TEXT", "REBUILD", "ModelSpec"]

Picture = Annotated[tuple[Width, Width, Width], Field()]
Option = bool | int | float | tuple[int, ...] | tuple[tuple[int, ...], ...]


class Mlp(Section):
    """A multilayer perceptron; `widths` runs from the input to the output."""

    name: Literal["mlp"]
    widths: Annotated[Widths, Field(min_length=2)]
    activation: Activation = "relu"
    dropout: Rate = 0.0
    norm: Literal["batch", "layer"] | None = None


class Cnn(Section):
    """A small convolutional network; `input` is `[height, width, channels]`."""

    name: Literal["cnn"]
    input: Annotated[tuple[Width, Width, Width], Field()]
    classes: Width
    channels: Annotated[Widths, Field(min_length=1)] = (32, 64)
    hidden: Width | None = None
    kernel: Annotated[int, Field(ge=1, le=31)] = 3
    convs: Annotated[int, Field(ge=1, le=10)] = 1
    activation: Activation = "relu"
    dropout: Rate = 0.0
    norm: Literal["batch"] | None = None


class Linear(Section):
    """One affine map from the flattened input: logistic regression, or a linear classifier, as the loss says."""

    name: Literal["linear"]
    d_in: Width
    classes: Width


class Resnet20(Section):
    """The residual network of 20 layers for 32 x 32 x 3 images."""

    name: Literal["resnet20"]
    classes: Width = 10
    flip: bool = False
    crop: Annotated[int, Field(ge=0, le=16)] = 0


class Chain(Section):
    """One layer after another, written out: each has a `type` (a layer of dlkit) and its fields."""

    name: Literal["chain"]
    layers: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=1000)]
    input: Annotated[tuple[Width, ...], Field(min_length=1, max_length=6)] | None = None

    def build(self) -> Layer[Any, Any]:
        """The layer."""
        from dlkit.config.definitions import from_data

        return from_data({"type": "Chain", "layers": self.layers})


class Classic(Section):
    """A network of `models.create` for pictures; `options` are those of its recipe.

    `input` is `[height, width, channels]`, by default that of the data. In training pictures are mirrored with `flip`,
    and moved by up to `crop` pixels.
    """

    name: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn",
        "vgg13_bn", "vgg16_bn", "vgg19_bn", "alexnet", "mobilenet_v2", "densenet121", "inception_v1", "inception_v3",
        "convnext_tiny", "vit_b_16", "vit_s_16", "vit_ti_16",
    ]  # fmt: skip
    classes: Width = 10
    input: Picture | None = None
    options: Annotated[dict[str, Option], Field(max_length=20)] = {}
    flip: bool = False
    crop: Annotated[int, Field(ge=0, le=64)] = 0


class Autoencoder(Section):
    """A multilayer perceptron to `latent` numbers and back; denoising with `mask` or `noise`."""

    name: Literal["autoencoder"]
    input: Picture | None = None
    widths: Widths = (512, 256)
    latent: Width = 32
    activation: Activation = "relu"
    mask: Rate = 0.0
    noise: NotNegative = 0.0


class ConvAutoencoder(Section):
    """Convolutions of stride 2 to `latent` numbers, and back; denoising with `mask` or `noise`."""

    name: Literal["conv_autoencoder"]
    input: Picture | None = None
    channels: Annotated[Widths, Field(min_length=1)] = (32, 64)
    latent: Width = 32
    activation: Activation = "relu"
    mask: Rate = 0.0
    noise: NotNegative = 0.0


class Vae(Section):
    """A variational autoencoder; its loss is `negative_elbo`."""

    name: Literal["vae"]
    input: Picture | None = None
    widths: Widths = (512, 256)
    latent: Width = 20
    activation: Activation = "relu"


class Ddpm(Section):
    """A denoising diffusion model with a small U-Net; its loss is `simple_diffusion`.

    `steps` times of noise by a `schedule`; `widths` are the channels of the levels, `blocks` residual blocks in each.
    """

    name: Literal["ddpm"]
    input: Picture | None = None
    widths: Annotated[Widths, Field(min_length=1)] = (32, 64)
    blocks: Width = 1
    groups: Width = 8
    heads: Annotated[int, Field(ge=0, le=1000)] = 1
    patch: Annotated[int, Field(ge=1, le=64)] = 1
    steps: Annotated[int, Field(ge=1, le=10**5)] = 1000
    schedule: Literal["linear", "cosine"] = "cosine"


class Gcn(Section):
    """Two graph convolutions, for the nodes of `cora` or `karate_club`."""

    name: Literal["gcn"]
    hidden: Width = 16
    dropout: Rate = 0.5


class Gat(Section):
    """Two layers of graph attention."""

    name: Literal["gat"]
    hidden: Width = 8
    heads: Width = 8
    out_heads: Width = 1
    dropout: Rate = 0.6


class GraphSage(Section):
    """Two layers of means over neighbours."""

    name: Literal["graph_sage"]
    hidden: Width = 64
    dropout: Rate = 0.5


class Gpt(Section):
    """Learned positions, pre-norm blocks with GELU, one matrix for tokens and output: for the data `text`."""

    name: Literal["gpt"]
    d: Width = 128
    heads: Width = 4
    depth: Width = 4
    hidden: Width | None = None
    rate: Rate = 0.0
    bias: bool = True
    tied: bool = True


class Llama(Section):
    """RMSNorm, rotary positions, SwiGLU, `kv_heads` keys and values: for the data `text`."""

    name: Literal["llama"]
    d: Width = 128
    heads: Width = 4
    depth: Width = 4
    kv_heads: Width | None = None
    hidden: Width | None = None
    rate: Rate = 0.0
    tied: bool = False


class RnnLm(Section):
    """`depth` recurrent layers between a table of tokens and a linear map: for the data `text`."""

    name: Literal["rnn_lm"]
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    d: Width = 256
    depth: Annotated[int, Field(ge=1, le=100)] = 2
    rate: Rate = 0.0


class BertSpec(Section):
    """An encoder that guesses the share `masked` of the characters of the data `text`."""

    name: Literal["bert"]
    d: Width = 128
    heads: Width = 4
    depth: Width = 4
    hidden: Width | None = None
    rate: Rate = 0.0
    masked: Annotated[float, Field(gt=0, lt=1)] = 0.15


class Seq2SeqSpec(Section):
    """An LSTM that attends to what another in both directions has read: for the data `pairs`."""

    name: Literal["seq2seq"]
    d: Width = 256
    rate: Rate = 0.0


class T5Spec(Section):
    """An encoder-decoder Transformer with relative positions: for the data `pairs`."""

    name: Literal["t5"]
    d: Width = 128
    heads: Width = 4
    depth: Width = 2
    hidden: Width | None = None
    gated: bool = False
    tied: bool = True
    rate: Rate = 0.0


ON_TEXT = ("gpt", "llama", "rnn_lm", "bert")
"""Models of the data `text`."""
ON_PAIRS = ("seq2seq", "t5")
"""Models of the data `pairs`."""
REBUILD = ("autoencoder", "conv_autoencoder", "vae", "ddpm")
"""Models whose targets are their inputs."""

ModelSpec = Annotated[
    Mlp
    | Cnn
    | Linear
    | Resnet20
    | Chain
    | Classic
    | Autoencoder
    | ConvAutoencoder
    | Vae
    | Ddpm
    | Gcn
    | Gat
    | GraphSage
    | Gpt
    | Llama
    | RnnLm
    | BertSpec
    | Seq2SeqSpec
    | T5Spec,
    Field(discriminator="name"),
]
