"""From the section [model] of a configuration to a definition, with what its data needs in front."""

import dataclasses
import math
from typing import Any

from dlkit import models, nn
from dlkit.config.errors import ConfigError
from dlkit.config.language import corpus, language_model
from dlkit.config.model_parts import ON_PAIRS, ON_TEXT, REBUILD
from dlkit.config.schema import Config
from dlkit.config.sources import EXAMPLES, GRAPHS, graph_sizes

__all__ = ["input_shape", "model"]

GRAPH_MODELS = ("gcn", "gat", "graph_sage")


def input_shape(config: Config) -> tuple[int, ...] | None:
    """The shape of one example as the model takes it; None where a `chain` does not say, or it takes several arrays."""
    spec = config.model
    if spec.name in (*GRAPH_MODELS, *ON_PAIRS, "bert"):
        return None
    if spec.name in ON_TEXT:
        return (getattr(config.data, "length", 1),)
    if spec.name == "resnet20":
        wanted: tuple[int, ...] | None = (32, 32, 3)
    elif spec.name in ("mlp", "linear"):
        return _flat_shape(config)
    else:
        wanted = getattr(spec, "input", None)
    given = EXAMPLES.get(config.data.name)
    if wanted is not None and given is not None and wanted != given:
        raise ConfigError(
            f"model.input: {spec.name} takes {list(wanted)}, but an example of {config.data.name} is {list(given)}"
        )
    return wanted or given


def _flat_shape(config: Config) -> tuple[int, ...]:
    spec = config.model
    given = EXAMPLES.get(config.data.name)
    d_in = spec.widths[0] if spec.name == "mlp" else spec.d_in  # pyright: ignore[reportAttributeAccessIssue]
    if given is not None and math.prod(given) != d_in:
        key = "widths[0]" if spec.name == "mlp" else "d_in"
        raise ConfigError(
            f"model.{key}: {spec.name} takes {d_in} numbers, but an example of {config.data.name} is "
            f"{list(given)}, {math.prod(given)} numbers"
        )
    return given or (d_in,)


def model(config: Config) -> nn.Layer[Any, Any]:
    """The model, with what its data needs in front: bytes become numbers in [0, 1], pictures one axis for an `mlp`.

    Raises:
      ConfigError: it does not fit the data, or a layer of a `chain` is wrong.
    """
    shape = input_shape(config)
    spec = config.model
    if spec.name not in GRAPH_MODELS and config.data.name in GRAPHS:
        raise ConfigError(f"model: {config.data.name} is a graph, and {spec.name} takes none: choose gcn, say")
    if spec.name in (*ON_TEXT, *ON_PAIRS) or config.data.name in ("text", "pairs"):
        return language_model(spec, config.data, corpus(config).tokenizer)
    front: dict[str, nn.Layer[Any, Any]] = {}
    if config.data.name in ("mnist", "cifar10"):
        front["rescale"] = nn.Rescale(1 / 255)
    if spec.name in ("mlp", "linear") and shape is not None and len(shape) > 1:
        front["flatten"] = nn.Flatten(len(shape))
    if getattr(spec, "flip", False):
        front["flip"] = nn.RandomFlip()
    if getattr(spec, "crop", 0):
        front["crop"] = nn.RandomCrop(spec.crop)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        body = _body(config, shape)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model: {error}") from None
    if not front:
        return body
    if isinstance(body, models.VAE):
        return dataclasses.replace(body, encoder=nn.Chain(**front, **body.encoder.children()))
    if isinstance(body, models.Diffusion):
        return dataclasses.replace(body, front=nn.Chain(**front))
    inside = body.children() if isinstance(body, nn.Chain) else {"body": body}
    return nn.Chain(**front, **inside)


def _body(config: Config, shape: tuple[int, ...] | None) -> nn.Layer[Any, Any]:
    spec = config.model
    if spec.name == "chain":
        return spec.build()
    if spec.name in GRAPH_MODELS:
        d_in, classes = graph_sizes(config)
        return models.NodeOutputs(models.create(spec.name, d_in=d_in, classes=classes, **_own(spec)))
    if spec.name in REBUILD:
        if shape is None or len(shape) != 3:
            raise ConfigError(f"model.input: {spec.name} wants the shape of a picture, [height, width, channels]")
        return models.create(spec.name, **_own(spec, "input"), input=shape)
    if spec.name in ("mlp", "linear", "cnn"):
        return models.create(spec.name, **_own(spec))
    made = _own(spec, "flip", "crop", "input", "options")
    options = dict(getattr(spec, "options", {}))
    if shape is not None and len(shape) == 3 and spec.name != "resnet20":
        options.setdefault("channels", shape[2])
        if spec.name.startswith("vit"):
            options.setdefault("image", shape[0])
    return models.create(spec.name, **made, **options)


def _own(spec: Any, *without: str) -> dict[str, Any]:
    return spec.model_dump(exclude={"name", *without})
