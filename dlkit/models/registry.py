"""Models by name: one table, nothing is imported by name."""

import difflib
import fnmatch
import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax  # noqa: F401  (the doctests)

from dlkit import nn
from dlkit.models.autoencoder import autoencoder, conv_autoencoder, vae
from dlkit.models.cnn import cnn
from dlkit.models.graph import gat, gcn, graph_sage
from dlkit.models.language.presets import LANGUAGE
from dlkit.models.linear import linear
from dlkit.models.mlp import mlp
from dlkit.models.time_unet import ddpm
from dlkit.models.vision.convnext import convnext
from dlkit.models.vision.densenet import densenet
from dlkit.models.vision.inception import inception_v1, inception_v3
from dlkit.models.vision.mobilenet import mobilenet_v2
from dlkit.models.vision.resnet import resnet
from dlkit.models.vision.resnet_cifar import resnet20
from dlkit.models.vision.unet import unet
from dlkit.models.vision.vgg import alexnet, vgg
from dlkit.models.vision.vit import vit

__all__ = ["create", "list_models"]

Recipe = Callable[..., nn.Layer[Any, Any]]

TABLE: Mapping[str, Recipe] = MappingProxyType(
    {
        "linear": linear, "mlp": mlp, "cnn": cnn, "resnet20": resnet20,
        **{f"resnet{depth}": functools.partial(resnet, depth) for depth in (18, 34, 50, 101, 152)},
        **{f"vgg{depth}": functools.partial(vgg, depth, norm=False) for depth in (11, 13, 16, 19)},
        **{f"vgg{depth}_bn": functools.partial(vgg, depth, norm=True) for depth in (11, 13, 16, 19)},
        "alexnet": alexnet, "mobilenet_v2": mobilenet_v2, "densenet121": densenet,
        "inception_v1": inception_v1, "inception_v3": inception_v3, "unet": unet, "convnext_tiny": convnext,
        "vit_b_16": functools.partial(vit, d=768, heads=12), "vit_s_16": functools.partial(vit, d=384, heads=6),
        "vit_ti_16": functools.partial(vit, d=192, heads=3),
        "autoencoder": autoencoder, "conv_autoencoder": conv_autoencoder, "vae": vae, "ddpm": ddpm,
        "gcn": gcn, "gat": gat, "graph_sage": graph_sage,
        **LANGUAGE,
    }
)  # fmt: skip


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create` knows, those that the glob `pattern` fits, in alphabetical order.

    In `dlkit.models` it is called `list`.

    >>> list_models("vit*")
    ['vit_b_16', 'vit_s_16', 'vit_ti_16']
    """
    return sorted(name for name in TABLE if fnmatch.fnmatchcase(name, pattern))


def create(name: str, **options: Any) -> nn.Layer[Any, Any]:
    """The model called `name`: a definition, without parameters. Options are those of its recipe.

    The language models of published sizes take other values for these too: `create("gpt2", vocab=65, depth=4)`.

    >>> create("resnet18", classes=10)["head"]
    Linear(d_in=512, d_out=10)

    Raises:
      ValueError: there is no such model.
      TypeError: the recipe has no such option, or wants one that is not given.
    """
    if name not in TABLE:
        near = difflib.get_close_matches(name, TABLE, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(list_models())}"
        raise ValueError(f"there is no model {name!r}; {hint}")
    recipe = TABLE[name]
    fixed = set(recipe.keywords) if isinstance(recipe, functools.partial) and name not in LANGUAGE else set()
    parameters = [p for p in inspect.signature(recipe).parameters.values() if p.name not in fixed]
    if unknown := sorted(options.keys() - {p.name for p in parameters}):
        known = ", ".join(p.name for p in parameters)
        raise TypeError(f"the model {name!r} has no option {unknown[0]!r}: it has {known}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in options]
    if missing:
        raise TypeError(f"the model {name!r} wants {', '.join(missing)}: create({name!r}, {missing[0]}=...)")
    return recipe(**options)
