"""Models of transformers with random weights: every layer's output, logits, decoding with a cache, and the way back.

Tolerance 1e-5 of the largest value at each layer: float32 at highest precision, two blocks of width 16. The layers are
compared in order, so that a failure names the first one that differs.
"""

import json
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import io, models, nn

SMALL = {"vocab_size": 23, "tie_word_embeddings": False}
LLAMA = SMALL | {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
T5 = {"vocab_size": 23, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 4,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}  # fmt: skip

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "image_size": 8,
       "patch_size": 4}  # fmt: skip

# name: transformers' class of the config, of the model, the config
CASES = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel",
             {"vocab_size": 23, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 4}),
    "gpt2_untied": ("GPT2Config", "GPT2LMHeadModel",
                    SMALL | {"n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24}),
    "llama3": ("LlamaConfig", "LlamaForCausalLM", LLAMA | {"rope_parameters": SCALED}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", LLAMA | {"head_dim": 6}),
    "bert": ("BertConfig", "BertForMaskedLM",
             {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
              "intermediate_size": 24, "max_position_embeddings": 16}),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "t5_gated": ("T5Config", "T5ForConditionalGeneration",
                 T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3}),
    "whisper": ("WhisperConfig", "WhisperForConditionalGeneration",
                {"vocab_size": 23, "num_mel_bins": 4, "max_source_positions": 6, "d_model": 16, "encoder_layers": 2,
                 "encoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_layers": 1,
                 "decoder_attention_heads": 4, "decoder_ffn_dim": 24, "max_target_positions": 8,
                 "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}),
    "vit": ("ViTConfig", "ViTForImageClassification", VIT | {"num_labels": 5}),
    "vit_bare": ("ViTConfig", "ViTModel", VIT | {"hidden_act": "gelu_new"}),
}  # fmt: skip


def inputs(name):
    rng = np.random.default_rng(3)
    if name == "whisper":
        return {"x": rng.standard_normal((2, 12, 4)).astype(np.float32)}
    if name.startswith("vit"):
        return {"x": rng.standard_normal((2, 8, 8, 3)).astype(np.float32)}
    given = {"x": rng.integers(0, 23, (2, 9))}
    if name == "bert":
        given |= {"types": rng.integers(0, 2, (2, 9)), "mask": np.arange(9) < np.array([[9], [6]])}
    if name.startswith("t5"):
        given |= {"source": rng.integers(0, 23, (2, 7)), "mask": np.arange(7) < np.array([[7], [4]])}
    return given


def from_live_transformers(name):
    import torch
    import transformers

    kind, architecture, values = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**values, attn_implementation="eager")
    module = getattr(transformers, architecture)(config).eval()
    if name == "t5_gated":  # as in the files of T5 1.1
        module.lm_head.weight = torch.nn.Parameter(torch.randn(23, 16))
    with torch.no_grad():
        for parameter in module.parameters():  # biases and scales too
            parameter.add_(0.1 * torch.randn(parameter.shape))
        given = {key: torch.tensor(value) for key, value in inputs(name).items()}
        more = {"output_hidden_states": True}
        if name == "whisper":
            out = module.model.encoder(given["x"].mT, **more)
            layers, y = out.hidden_states, out.last_hidden_state
        elif name.startswith("vit"):
            out = module(given["x"].movedim(-1, 1), **more)
            layers, y = out.hidden_states, out.logits if name == "vit" else out.last_hidden_state[:, 0]
        elif name.startswith("t5"):
            out = module(given["source"], given["mask"], decoder_input_ids=given["x"], **more)
            layers, y = out.encoder_hidden_states + out.decoder_hidden_states, out.logits
        else:
            extra = {"token_type_ids": given["types"], "attention_mask": given["mask"]} if name == "bert" else {}
            out = module(given["x"], **extra, **more)
            layers, y = out.hidden_states, out.logits
    stored = config.to_dict() | {"architectures": [architecture]}
    told = {"config": np.array(json.dumps(stored, default=str)), "y": y.numpy()}
    told |= {f"h{i:02}": h.numpy() for i, h in enumerate(layers)}
    weights = {k: v.numpy() for k, v in module.state_dict().items()}
    if name.startswith("vit"):  # transformers 5 calls its modules by other names than its files
        with tempfile.TemporaryDirectory() as directory:
            module.save_pretrained(directory)
            weights = dict(io.open_tensors(directory))
    return told | {f"w:{k}": v for k, v in weights.items()}


def told(name):
    return reference(f"io/huggingface/{name}", lambda: from_live_transformers(name), needs="transformers")


def read(name):
    found = told(name)
    config = json.loads(str(found["config"]))
    weights = {k[2:]: v for k, v in found.items() if k.startswith("w:")}
    return config, weights, found, *io.from_hugging_face((config, weights))


def through(stack, params, h, **given):
    """The input of each block, and the output of the last."""
    yield h
    for i in range(stack.depth):
        h, _ = stack.block.apply(jax.tree.map(lambda leaf: leaf[i], params), None, h, nn.EVAL, **given)  # noqa: B023
        yield h


def layers(name, model, params, given):
    """The names of the layers in order and their outputs, where transformers gives them too."""
    x, mask = given["x"], given.get("mask")
    if name.startswith("t5"):
        mask = mask[:, None, None]
        bias = model.encoder_bias(params["encoder_bias"], jnp.arange(7))
        h = model.tokens(params["tokens"], given["source"])
        *first, last = through(model.encoder, params["encoder"], h, bias=bias, mask=mask)
        memory = model.encoder_norm(params["encoder_norm"], last)
        bias = model.decoder_bias(params["decoder_bias"], jnp.arange(9))
        h = model.tokens(params["tokens"], x)
        *then, last = through(model.decoder, params["decoder"], h, bias=bias, memory=memory, memory_mask=mask)
        found = [*first, memory, *then, model.decoder_norm(params["decoder_norm"], last)]
    elif name == "whisper":
        gelu = nn.functional.gelu
        h = gelu(model.conv2(params["conv2"], gelu(model.conv1(params["conv1"], x))))
        *first, last = through(model.blocks, params["blocks"], model.positions(params["positions"], h))
        found = [*first, model.norm(params["norm"], last)]
    elif name.startswith("vit"):
        at = ["positions", *(f"block{i + 1}" for i in range(2))]
        found = list(models.features(model, params, None, x, at).values())
    elif name == "bert":
        h = model.tokens(params["tokens"], x) + model.types(params["types"], given["types"])
        h = model.norm(params["norm"], model.positions(params["positions"], h))
        found = list(through(model.blocks, params["blocks"], h, mask=mask[:, None, None]))
    else:
        h = model.tokens(params["tokens"], x)
        h = h if model.positions is None else model.positions(params["positions"], h)
        *first, last = through(model.blocks, params["blocks"], h)
        found = [*first, model.norm(params["norm"], last)]
    return found


def call(name, model, given):
    keywords = {}
    if name == "bert":
        keywords = {"types": given["types"], "mask": given["mask"][:, None, None]}
    if name.startswith("t5"):
        keywords = {"source": given["source"], "source_mask": given["mask"][:, None, None]}
    return lambda params: model.apply(params, None, given["x"], nn.EVAL, **keywords)[0]


@pytest.mark.parametrize("name", CASES)
def test_logits_and_every_layer(name):
    config, weights, found, model, params, report = read(name)
    given = {k: jnp.asarray(v, jnp.int32 if v.dtype == np.int64 else v.dtype) for k, v in inputs(name).items()}

    def error(mine, theirs):
        return np.abs(np.asarray(mine) - theirs).max() / np.abs(theirs).max()

    ours, y = jax.jit(lambda params: (layers(name, model, params, given), call(name, model, given)(params)))(params)
    theirs = [found[k] for k in sorted(found) if k[0] == "h" and k[1:].isdigit()]
    assert len(ours) == len(theirs)
    differs = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if not error(a, b) <= 1e-5]
    assert not differs, f"{name}: the first layer that differs is number {differs[0]} of {len(ours)}"
    assert error(y, found["y"]) <= 1e-5
    # every name was accounted for, and goes back bit for bit
    assert {*report.used, *report.skipped} == weights.keys()
    back = io.to_hugging_face(config, model, params)
    assert all(weights[k].tobytes() == v.tobytes() and weights[k].shape == v.shape for k, v in back.items())
    tied = {k for k in weights if k not in back and k not in report.skipped}
    assert all(any(np.array_equal(weights[k], v) for v in back.values()) for k in tied)


def cached(model, params, x, **more):
    """Logits of a prompt of 4 tokens, then one token at a time."""
    state = model.init_cache(2, x.shape[1])
    step = jax.jit(lambda params, state, x: model.apply(params, state, x, nn.EVAL, **more))
    first, state = step(params, state, x[:, :4])
    found = [first]
    for i in range(4, x.shape[1]):
        y, state = step(params, state, x[:, i : i + 1])
        found.append(y)
    return jnp.concatenate(found, 1)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "t5"])
def test_a_cache_changes_nothing(name):
    """Token for token what the full pass says, which is transformers'."""
    *_, found, model, params, _ = read(name)
    x = jnp.asarray(inputs(name)["x"], jnp.int32)
    more = {}
    if name == "t5":
        mask = jnp.asarray(inputs(name)["mask"])[:, None, None]
        source = jnp.asarray(inputs(name)["source"], jnp.int32)
        more = {"memory": model.encode(params, source, source_mask=mask), "source_mask": mask}
    y = np.asarray(cached(model, params, x, **more))
    assert np.abs(y - found["y"]).max() <= 1e-5 * np.abs(found["y"]).max()
    assert (y.argmax(-1) == found["y"].argmax(-1)).all()


def test_directories_single_and_sharded(tmp_path):
    config, weights, _, model, params, _ = read("gpt2")
    for place, size in ((tmp_path / "one", None), (tmp_path / "many", 4000)):
        place.mkdir()
        (place / "config.json").write_text(json.dumps(config))
        files = {k: v for k, v in weights.items() if k != "lm_head.weight"}  # as save_pretrained does where it is tied
        io.write_tensors(place / "model.safetensors" if size is None else place, files, shard_bytes=size)
        again, numbers, report = io.from_hugging_face(place)
        assert again == model
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), numbers, params))
        assert report.used
    # a model without a head has no prefix
    bare = {k.removeprefix("transformer."): v for k, v in weights.items() if k != "lm_head.weight"}
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), io.from_hugging_face((config, bare))[1], params)
    )
    half = io.from_hugging_face((config, weights), dtype=jnp.bfloat16)[1]
    assert half["tokens"]["table"].dtype == jnp.bfloat16


def test_a_wrong_file_is_refused(tmp_path):
    config, weights, *_ = read("gpt2")
    with pytest.raises(io.WeightsError, match="tied, got others"):
        io.from_hugging_face((config, weights | {"lm_head.weight": weights["lm_head.weight"] + 1}))
    lacking = {k: v for k, v in weights.items() if k != "transformer.h.1.mlp.c_fc.bias"}
    with pytest.raises(io.WeightsError) as failed:
        io.from_hugging_face((config, lacking | {"transformer.h.2.ln_1.weight": np.ones(16, np.float32)}))
    assert failed.value.report.missing == ("transformer.h.1.mlp.c_fc.bias",)
    assert failed.value.report.unexpected == ("transformer.h.2.ln_1.weight",)
    with pytest.raises(ValueError, match=r"model_type 'mamba'"):
        io.model_from_config({"model_type": "mamba"})
    with pytest.raises(ValueError, match="lacks 'n_embd'"):
        io.model_from_config({"model_type": "gpt2", "vocab_size": 3, "n_positions": 4})
    with pytest.raises(ValueError, match=r"scale_attn_by_inverse_layer_idx=True"):
        io.model_from_config(config | {"scale_attn_by_inverse_layer_idx": True})
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24}
    for more, message in (
        ({"qkv_bias": False}, "qkv_bias=False"),
        ({"image_size": [8, 16]}, r"image_size=\[8, 16\]: only squares"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "'ViTForMaskedImageModeling'; known are"),
    ):
        with pytest.raises(ValueError, match=message):
            io.model_from_config({"model_type": "vit", **sizes, **more})
    with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
        io.from_hugging_face(tmp_path)
