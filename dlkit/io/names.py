"""Hugging Face's names of modules by ours, one table a family: what `torch_sources` takes as `modules`."""

from collections.abc import Mapping, Sequence

from dlkit.io.torch_layers import Place

__all__ = ["BERT", "GPT2", "LLAMA", "T5", "T5_GATED", "T5_PLAIN", "WHISPER", "torchvision_resnet", "vit"]


def _split(words: Mapping[str, str], below: str) -> dict[str, str | Place]:
    return {f"{below}/{name}": word for name, word in words.items()}


def _fused(i: int) -> Place:
    return Place("c_attn", (i, 3), "same")


GPT2 = {
    "tokens": "wte", "positions": "wpe", "blocks": "h", "norm": "ln_f", "head": "/lm_head",
    "blocks/norm1": "ln_1", "blocks/norm2": "ln_2", "blocks/attention": "attn",
    "blocks/attention/q": _fused(0), "blocks/attention/k": _fused(1), "blocks/attention/v": _fused(2),
    "blocks/attention/out": Place("c_proj", layout="same"),
    "blocks/mlp/up": Place("c_fc", layout="same"), "blocks/mlp/down": Place("c_proj", layout="same"),
}  # fmt: skip
LLAMA = {
    "tokens": "embed_tokens", "blocks": "layers", "head": "/lm_head",
    "blocks/norm1": "input_layernorm", "blocks/norm2": "post_attention_layernorm",
    "blocks/attention": "self_attn",
    **_split({"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "o_proj"}, "blocks/attention"),
    **_split({"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}, "blocks/mlp"),
}  # fmt: skip
BERT = {
    "tokens": "embeddings.word_embeddings", "types": "embeddings.token_type_embeddings",
    "positions": "embeddings.position_embeddings", "norm": "embeddings.LayerNorm", "blocks": "encoder.layer",
    "blocks/norm1": "attention.output.LayerNorm", "blocks/norm2": "output.LayerNorm",
    **_split({"q": "self.query", "k": "self.key", "v": "self.value", "out": "output.dense"}, "blocks/attention"),
    "blocks/mlp": "", "blocks/mlp/up": "intermediate.dense", "blocks/mlp/down": "output.dense",
    "head": "/cls.predictions", "head/dense": "transform.dense", "head/norm": "transform.LayerNorm",
    "head/bias": Place(""),
}  # fmt: skip


def _t5_half(side: str, mlp: int) -> dict[str, str | Place]:
    names = {"q": "q", "k": "k", "v": "v", "out": "o"}
    return {
        side: f"{side}.block",
        f"{side}_norm": f"{side}.final_layer_norm",
        f"{side}_bias": f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias",
        f"{side}/norm1": "layer.0.layer_norm",
        f"{side}/attention": "layer.0.SelfAttention",
        **_split(names, f"{side}/attention"),
        f"{side}/norm_cross": "layer.1.layer_norm",
        f"{side}/cross": "layer.1.EncDecAttention",
        **_split(names, f"{side}/cross"),
        f"{side}/norm2": f"layer.{mlp}.layer_norm",
        f"{side}/mlp": f"layer.{mlp}.DenseReluDense",
        f"{side}/mlp/down": "wo",
    }


T5 = {"tokens": "shared", "head": "lm_head", **_t5_half("encoder", 1), **_t5_half("decoder", 2)}
T5_PLAIN, T5_GATED = ({f"{s}/mlp/{n}": w for s in ("encoder", "decoder") for n, w in words.items()}
                        for words in ({"up": "wi"}, {"gate": "wi_0", "up": "wi_1"}))  # fmt: skip
WHISPER = {
    "positions": "embed_positions", "blocks": "layers", "norm": "layer_norm",
    "blocks/norm1": "self_attn_layer_norm", "blocks/norm2": "final_layer_norm", "blocks/attention": "self_attn",
    **_split({"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}, "blocks/attention"),
    "blocks/mlp": "", "blocks/mlp/up": "fc1", "blocks/mlp/down": "fc2",
}  # fmt: skip


def vit(depth: int) -> dict[str, str | Place]:
    """The names in files of `ViTModel`, for the blocks `block1` .. of `models.vit`; token and positions are arrays."""
    found: dict[str, str | Place] = {
        "patches": "embeddings.patch_embeddings.projection", "norm": "layernorm", "head": "/classifier",
        "token": Place("embeddings", weight="cls_token"),
        "positions": Place("embeddings", weight="position_embeddings"),
    }  # fmt: skip
    for i in range(depth):
        block = f"block{i + 1}"
        found |= {
            block: f"encoder.layer.{i}", f"{block}/norm1": "layernorm_before", f"{block}/norm2": "layernorm_after",
            f"{block}/mlp": "", f"{block}/mlp/up": "intermediate.dense", f"{block}/mlp/down": "output.dense",
            **_split({"q": "attention.query", "k": "attention.key", "v": "attention.value", "out": "output.dense"},
                     f"{block}/attention"),
        }  # fmt: skip
    return found


def torchvision_resnet(depths: Sequence[int]) -> dict[str, str]:
    """torchvision's names for a residual network, the `modules` of `from_torch`.

    The network is a `Chain` of `conv`, `norm`, `stage1` .. `stage4` and `head`, each stage one of `block1`, `block2`,
    ... (`nn.BasicBlock` or `nn.Bottleneck`); `depths` says how many, (2, 2, 2, 2) for ResNet-18.

    >>> torchvision_resnet((2, 2))["stage2/block1"]
    '0'
    """
    found = {"conv": "conv1", "norm": "bn1", "head": "fc"}
    for i, depth in enumerate(depths, 1):
        found[f"stage{i}"] = f"layer{i}"
        for j in range(1, depth + 1):
            block = f"stage{i}/block{j}"
            found |= {block: str(j - 1), f"{block}/residual": "", f"{block}/residual/body": ""}
            found |= {f"{block}/residual/body/norm{k}": f"bn{k}" for k in (1, 2, 3)}
            shortcut = f"{block}/residual/shortcut"
            found |= {shortcut: "downsample", f"{shortcut}/conv": "0", f"{shortcut}/norm": "1"}
    return found
