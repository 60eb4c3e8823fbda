"""Models of Hugging Face from a directory with `config.json` and safetensors, without torch and transformers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlkit.io import configs, names
from dlkit.io.report import Report
from dlkit.io.sources import Source, export_tensors, import_tensors
from dlkit.io.tensors import open_tensors
from dlkit.io.torch_layers import Place, torch_sources

__all__ = ["from_hugging_face", "hugging_face_sources", "model_from_config", "to_hugging_face"]

Config = Mapping[str, Any]


@dataclass(frozen=True)
class _Family:
    """How the models of one `model_type` are made and where their weights lie."""

    make: Callable[[Config], Any]
    modules: Callable[[Config], Mapping[str, str | Place]]
    root: str  # the prefix of a model with a head; without one, files lack it
    aliases: Callable[[Config, str], Mapping[str, str]] = lambda config, root: {}
    ignore: Sequence[str] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)  # what a config that lacks the key means


def _tied(head: str, table: str) -> Callable[[Config, str], Mapping[str, str]]:
    def aliases(config: Config, root: str) -> Mapping[str, str]:
        return {head: f"{root}.{table}" if root else table} if config["tie_word_embeddings"] else {}

    return aliases


def _bert_tied(config: Config, root: str) -> Mapping[str, str]:
    table = f"{root}.embeddings.word_embeddings.weight" if root else "embeddings.word_embeddings.weight"
    return {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": "cls.predictions.bias"}


def _t5_tied(config: Config, root: str) -> Mapping[str, str]:
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    return dict.fromkeys([*names, *["lm_head.weight"] * config["tie_word_embeddings"]], "shared.weight")


def _always(modules: Mapping[str, str | Place]) -> Callable[[Config], Mapping[str, str | Place]]:
    return lambda config: modules


def _t5_modules(config: Config) -> Mapping[str, str | Place]:
    return names.T5 | (names.T5_GATED if config["feed_forward_proj"].startswith("gated") else names.T5_PLAIN)


_LLAMA_FAMILY = _Family(
    configs.llama,
    _always(names.LLAMA),
    "model",
    _tied("lm_head.weight", "embed_tokens.weight"),
    ["*rotary_emb.inv_freq"],
    {"tie_word_embeddings": False, "rms_norm_eps": 1e-6},
)
_FAMILIES: Mapping[str, _Family] = {
    "gpt2": _Family(
        configs.gpt2,
        _always(names.GPT2),
        "transformer",
        _tied("lm_head.weight", "wte.weight"),
        ["*attn.bias", "*attn.masked_bias"],
        {"tie_word_embeddings": True, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"},
    ),
    "llama": _LLAMA_FAMILY,
    "mistral": _LLAMA_FAMILY,
    "qwen2": _LLAMA_FAMILY,
    "qwen3": _LLAMA_FAMILY,
    "bert": _Family(
        configs.bert,
        _always(names.BERT),
        "bert",
        _bert_tied,
        ["*position_ids", "*pooler.dense.*", "cls.seq_relationship.*"],
        {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "tie_word_embeddings": True},
    ),
    "t5": _Family(
        configs.t5,
        _t5_modules,
        "",
        _t5_tied,
        ["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"],
        {
            "feed_forward_proj": "relu",
            "tie_word_embeddings": True,
            "layer_norm_epsilon": 1e-6,
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
        },
    ),
    "vit": _Family(
        configs.vit,
        lambda config: names.vit(config["num_hidden_layers"]),
        "vit",
        ignore=["*pooler.dense.*"],
        defaults={
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "num_channels": 3,
            "image_size": 224,
            "patch_size": 16,
        },
    ),
    "whisper": _Family(configs.whisper, _always(names.WHISPER), "model.encoder", ignore=["*decoder.*", "proj_out.*"]),
}


def _family(config: Config) -> tuple[_Family, Config]:
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        raise ValueError(f"config.json has model_type {kind!r}; known are {', '.join(_FAMILIES)}")
    family = _FAMILIES[str(kind)]
    return family, {**family.defaults, **config}


def model_from_config(config: Config) -> Any:
    """The definition that a `config.json` describes.

    GPT-2, Llama, Mistral, Qwen2, Qwen3, BERT, T5, ViT, and Whisper's encoder.

    Dropout rates are not taken over. BERT has its masked-token head where `architectures` says so; a `ViTModel` has no
    head: it gives the class token's features.

    >>> config = {"model_type": "gpt2", "vocab_size": 11, "n_positions": 8, "n_embd": 16, "n_head": 2, "n_layer": 2}
    >>> type(model_from_config(config)).__name__
    'Decoder'

    Raises:
      ValueError: another `model_type`, or something in the config that is not computed here.
    """
    family, config = _family(config)
    try:
        return family.make(config)
    except KeyError as error:
        raise ValueError(f"config.json of a {config['model_type']} lacks {error}") from None


def hugging_face_sources(config: Config, model: Any, given: Sequence[str] | None = None) -> dict[str, Source]:
    """Where each parameter of `model_from_config(config)` lies in the files.

    `given`, the names of a file, tell whether it is of a model without a head, whose names have no prefix; without them
    `architectures` does.
    """
    family, config = _family(config)
    found = torch_sources(model, family.modules(config), _root(family, config, given))
    return {path.removeprefix("params/"): source for path, source in found.items()}


def _root(family: _Family, config: Config, given: Sequence[str] | None) -> str:
    root = family.root
    last = root.rpartition(".")[2] if "." in root else ""  # Whisper's encoder, in a model without a head
    if given is None:
        (architecture,) = (config.get("architectures") or [""])[:1]
        bare = architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
        return last if bare else root
    if not root or any(name.startswith(f"{root}.") for name in given):
        return root
    return last if last and any(name.startswith(f"{last}.") for name in given) else ""


def _with_head(config: Config, tensors: Mapping[str, Any]) -> Config:
    """T5's config says whether the decoder's output is scaled; whether its head is the table, only the file does."""
    head, table = (tensors.get(name) for name in ("lm_head.weight", "shared.weight"))
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    tied = head is None or table is None or np.array_equal(head, table)
    return {**config, "tie_word_embeddings": tied, "scale_decoder_outputs": scaled}


def from_hugging_face(
    directory: str | Path | tuple[Config, Mapping[str, Any]], *, dtype: Any = jnp.float32, strict: bool = True
) -> tuple[Any, Any, Report]:
    """`(model, params, report)` from a directory with `config.json` and safetensors, single or sharded.

    Args:
      directory: as `save_pretrained` writes it; or the config and a mapping of names to arrays.
      dtype: of the parameters, whatever the file's.
      strict: raise unless every name is used and every parameter found.

    What is in a file but no weight of ours is in `report.skipped`: stored masks, BERT's and ViT's pooler, the
    next-sentence head, Whisper's decoder. Tied matrices that a file holds twice must be equal.

    Raises:
      ValueError: a model that is not known, see `model_from_config`.
      WeightsError: names are missing, unexpected or of another shape; with the report.
      FileNotFoundError, TensorFileError: see `open_tensors`.
    """
    if isinstance(directory, tuple):
        (config, tensors), where = directory, "the weights"
    else:
        place, where = Path(directory), str(directory)
        try:
            config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"{place} holds no config.json: want what save_pretrained writes") from None
        tensors = open_tensors(place)
    if config.get("model_type") == "t5":
        config = _with_head(config, tensors)
    model = model_from_config(config)
    family, full = _family(config)
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, dtype), jax.eval_shape(model.init, jax.random.key(0)))
    held = list(tensors)
    params, report = import_tensors(
        shapes,
        tensors,
        hugging_face_sources(config, model, held),
        ignore=family.ignore,
        aliases=family.aliases(full, _root(family, full, held)),
        where=where,
        strict=strict,
    )
    return model, params, report


def to_hugging_face(config: Config, model: Any, params: Any) -> dict[str, Any]:
    """The parameters under Hugging Face's names and in its layout, for `write_tensors` beside the `config.json`."""
    return export_tensors(params, hugging_face_sources(config, model))
