"""Definitions from the `config.json` of Hugging Face, one function a family; what is not computed here is refused."""

from collections.abc import Mapping
from typing import Any

from dlkit import models, nn

__all__ = ["bert", "gpt2", "llama", "t5", "vit", "whisper"]

Config = Mapping[str, Any]


def _activation(name: str) -> nn.Layer:
    known = {
        "gelu": nn.Gelu(),
        "gelu_new": nn.Gelu(approximate=True),
        "gelu_pytorch_tanh": nn.Gelu(approximate=True),
        "relu": nn.Relu(),
        "silu": nn.Silu(),
    }
    if name not in known:
        raise ValueError(f"config.json has the activation {name!r}; known are {', '.join(known)}")
    return known[name]


def _refuse(config: Config, **wanted: Any) -> None:
    for name, want in wanted.items():
        if config.get(name, want) != want:
            raise ValueError(
                f"config.json of a {config['model_type']} has {name}={config[name]!r}: only {want!r} is computed here"
            )


def gpt2(config: Config) -> Any:
    _refuse(
        config,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    return models.gpt(
        config["vocab_size"],
        config["n_positions"],
        config["n_embd"],
        config["n_head"],
        config["n_layer"],
        hidden=config.get("n_inner"),
        eps=config["layer_norm_epsilon"],
        tied=config["tie_word_embeddings"],
        activation=_activation(config["activation_function"]),
    )


def _rope(config: Config) -> nn.Rope:
    # transformers 5 has one `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`.
    told = {"rope_theta": config.get("rope_theta", 10000.0)}
    told |= config.get("rope_scaling") or {}
    told |= config.get("rope_parameters") or {}
    kind = told.get("rope_type", told.get("type", "default"))
    base, fraction = float(told["rope_theta"]), float(told.get("partial_rotary_factor", 1.0))
    if kind == "default":
        return nn.Rope(base, fraction=fraction)
    if kind == "linear":
        return nn.Rope(base, fraction=fraction, scaling="linear", factor=float(told["factor"]))
    if kind == "llama3":
        if (told["low_freq_factor"], told["high_freq_factor"]) != (1.0, 4.0):
            raise ValueError(f"config.json has {told}: only frequency factors 1 and 4 are computed here")
        length = int(told["original_max_position_embeddings"])
        return nn.Rope(base, fraction=fraction, scaling="llama3", factor=float(told["factor"]), length=length)
    raise ValueError(f"config.json has the rope type {kind!r}; known are 'default', 'linear' and 'llama3'")


def llama(config: Config) -> Any:
    _refuse(config, hidden_act="silu", pretraining_tp=1)
    kind = config["model_type"]
    window = config.get("sliding_window")
    if kind.startswith("qwen"):
        layer_types = set(config.get("layer_types") or ["full_attention"])
        if config.get("use_sliding_window") and layer_types != {"full_attention"}:
            raise ValueError("config.json has layers with a sliding window beside others: not computed here")
        window = None
    bias = bool(config.get("attention_bias", False))
    return models.llama(
        config["vocab_size"],
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_hidden_layers"],
        kv_heads=config.get("num_key_value_heads"),
        head_dim=config.get("head_dim"),
        hidden=config["intermediate_size"],
        position=_rope(config),
        eps=config["rms_norm_eps"],
        qkv_bias=bias or kind == "qwen2",
        out_bias=bias,
        mlp_bias=config.get("mlp_bias", False),
        qk_norm=kind == "qwen3",
        tied=config["tie_word_embeddings"],
        window=window,
    )


def bert(config: Config) -> Any:
    _refuse(config, position_embedding_type="absolute", is_decoder=False)
    architectures = config.get("architectures") or ["BertForMaskedLM"]
    return models.bert(
        config["vocab_size"],
        config["max_position_embeddings"],
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_hidden_layers"],
        hidden=config["intermediate_size"],
        types=config["type_vocab_size"],
        eps=config["layer_norm_eps"],
        head=architectures[0] in ("BertForMaskedLM", "BertForPreTraining"),
        activation=_activation(config["hidden_act"]),
    )


def t5(config: Config) -> Any:
    kind = config["feed_forward_proj"]
    if kind not in ("relu", "gated-gelu"):
        raise ValueError(f"config.json of a t5 has feed_forward_proj={kind!r}: known are 'relu' and 'gated-gelu'")
    return models.t5(
        config["vocab_size"],
        config["d_model"],
        config["num_heads"],
        config["num_layers"],
        decoder_depth=config.get("num_decoder_layers"),
        head_dim=config["d_kv"],
        hidden=config["d_ff"],
        buckets=config["relative_attention_num_buckets"],
        max_distance=config["relative_attention_max_distance"],
        gated=kind == "gated-gelu",
        tied=config["tie_word_embeddings"],
        scaled=config.get("scale_decoder_outputs", config["tie_word_embeddings"]),
        eps=config["layer_norm_epsilon"],
    )


def _side(config: Config, name: str) -> int:
    value = config[name]
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise ValueError(
            f"config.json of a {config['model_type']} has {name}={value!r}: only squares are computed here"
        )
    return sides.pop()


def vit(config: Config) -> Any:
    _refuse(config, qkv_bias=True)
    architecture = (config.get("architectures") or ["ViTForImageClassification"])[0]
    if architecture not in ("ViTForImageClassification", "ViTModel"):
        raise ValueError(
            f"config.json of a vit has the architecture {architecture!r}; known are 'ViTForImageClassification' and "
            "'ViTModel'"
        )
    model = models.vit(
        len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2),
        d=config["hidden_size"],
        heads=config["num_attention_heads"],
        depth=config["num_hidden_layers"],
        patch=_side(config, "patch_size"),
        image=_side(config, "image_size"),
        hidden=config["intermediate_size"],
        channels=config["num_channels"],
        eps=config["layer_norm_eps"],
        activation=_activation(config["hidden_act"]),
    )
    return models.with_head(model, nn.Identity()) if architecture == "ViTModel" else model


def whisper(config: Config) -> Any:
    _refuse(config, activation_function="gelu", scale_embedding=False)
    return models.whisper_encoder(
        config["num_mel_bins"],
        config["max_source_positions"],
        config["d_model"],
        config["encoder_attention_heads"],
        config["encoder_layers"],
        hidden=config["encoder_ffn_dim"],
    )
