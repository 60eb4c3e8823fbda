"""Mathematics on arrays: pure functions, with no parameter trees, no state and no names.

Arrays are batched and channels last. The layers of `dlkit.nn` own names and initialization, and call these.
"""

from dlkit.functional.activations import (
    celu,
    elu,
    gelu,
    identity,
    log_sigmoid,
    mish,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
    squareplus,
    swish,
    tanh,
    tanh_shrink,
)
from dlkit.functional.convolution.adaptive import adaptive_avg_pool, adaptive_max_pool, adaptive_windows
from dlkit.functional.convolution.augment import random_crop, random_flip
from dlkit.functional.convolution.conv import conv, conv_transpose
from dlkit.functional.convolution.grid import affine_grid, grid_sample
from dlkit.functional.convolution.padding import crop, pad
from dlkit.functional.convolution.patches import fold, patchify, unfold, unpatchify
from dlkit.functional.convolution.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool
from dlkit.functional.convolution.resize import resize
from dlkit.functional.convolution.shuffle import channel_shuffle, pixel_shuffle, pixel_unshuffle
from dlkit.functional.convolution.spatial import Padding, resolve_padding, same_padding, window_output_size
from dlkit.functional.dropout import dropout, keep_mask
from dlkit.functional.dropout_family import (
    alpha_dropout,
    drop_block,
    drop_path,
    gaussian_dropout,
    gaussian_noise,
    linear_rates,
)
from dlkit.functional.gates import crelu, geglu, glu, maxout, reglu, swiglu
from dlkit.functional.graphs.graph import Graph, batch_graphs, pad_graph, size_bucket, unbatch_graphs
from dlkit.functional.graphs.graph_edges import add_self_loops, to_undirected
from dlkit.functional.graphs.propagate import aggregate, appnp_propagate, gcn_propagate, pool_set
from dlkit.functional.graphs.segments import (
    degree,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
    take_rows,
)
from dlkit.functional.linear import embedding, linear, one_hot
from dlkit.functional.normalization.norms import (
    batch_norm_stats,
    group_norm,
    layer_norm,
    normalize,
    rms_norm,
    statistics_count,
)
from dlkit.functional.normalization.norms_local import instance_norm, local_response_norm, unit_norm
from dlkit.functional.normalization.norms_weights import power_iteration, spectral_norm, weight_norm, weight_standardize
from dlkit.functional.piecewise import (
    hard_shrink,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    prelu,
    relu,
    relu6,
    soft_shrink,
    threshold,
)
from dlkit.functional.precision import wide_dtype
from dlkit.functional.quantize import nearest, perplexity, quantize
from dlkit.functional.recurrence.linear_recurrence import linear_recurrence
from dlkit.functional.recurrence.memory import (
    content_address,
    interpolate_address,
    read_memory,
    sharpen_address,
    shift_address,
    write_memory,
)
from dlkit.functional.recurrence.recurrent import gru_step, lstm_step, rnn_step, scan_cell, valid_steps, zoneout
from dlkit.functional.simplex import gumbel_softmax, log_softmax, logsumexp, softmax, softmin, sparsemax
from dlkit.functional.transformer.attention import AttentionKind, ScoreMod, attention, attention_weights
from dlkit.functional.transformer.attention_additive import additive_weights
from dlkit.functional.transformer.masks import (
    causal_mask,
    combine_masks,
    padding_mask,
    segment_mask,
    sliding_window_mask,
)
from dlkit.functional.transformer.moe import RouterStats, moe, route
from dlkit.functional.transformer.moe_choice import expert_choice
from dlkit.functional.transformer.positions import (
    alibi_bias,
    alibi_slopes,
    relative_buckets,
    rope,
    rope_frequencies,
    sinusoidal,
)

__all__ = [
    "AttentionKind",
    "Graph",
    "Padding",
    "RouterStats",
    "ScoreMod",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "adaptive_windows",
    "add_self_loops",
    "additive_weights",
    "affine_grid",
    "aggregate",
    "alibi_bias",
    "alibi_slopes",
    "alpha_dropout",
    "appnp_propagate",
    "attention",
    "attention_weights",
    "avg_pool",
    "batch_graphs",
    "batch_norm_stats",
    "causal_mask",
    "celu",
    "channel_shuffle",
    "combine_masks",
    "content_address",
    "conv",
    "conv_transpose",
    "crelu",
    "crop",
    "degree",
    "drop_block",
    "drop_path",
    "dropout",
    "elu",
    "embedding",
    "expert_choice",
    "fold",
    "gaussian_dropout",
    "gaussian_noise",
    "gcn_propagate",
    "geglu",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "glu",
    "grid_sample",
    "group_norm",
    "gru_step",
    "gumbel_softmax",
    "hard_shrink",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "identity",
    "instance_norm",
    "interpolate_address",
    "keep_mask",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_rates",
    "linear_recurrence",
    "local_response_norm",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "lstm_step",
    "max_pool",
    "maxout",
    "mish",
    "moe",
    "nearest",
    "normalize",
    "one_hot",
    "pad",
    "pad_graph",
    "padding_mask",
    "patchify",
    "perplexity",
    "pixel_shuffle",
    "pixel_unshuffle",
    "pool_set",
    "power_iteration",
    "prelu",
    "quantize",
    "random_crop",
    "random_flip",
    "read_memory",
    "reglu",
    "relative_buckets",
    "relu",
    "relu6",
    "resize",
    "resolve_padding",
    "rms_norm",
    "rnn_step",
    "rope",
    "rope_frequencies",
    "route",
    "same_padding",
    "scan_cell",
    "segment_mask",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_softmax",
    "segment_sum",
    "selu",
    "sharpen_address",
    "shift_address",
    "sigmoid",
    "silu",
    "sinusoidal",
    "size_bucket",
    "sliding_window_mask",
    "soft_shrink",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "sparsemax",
    "spectral_norm",
    "squareplus",
    "statistics_count",
    "swiglu",
    "swish",
    "take_rows",
    "tanh",
    "tanh_shrink",
    "threshold",
    "to_undirected",
    "unbatch_graphs",
    "unfold",
    "unit_norm",
    "unpatchify",
    "valid_steps",
    "weight_norm",
    "weight_standardize",
    "wide_dtype",
    "window_output_size",
    "write_memory",
    "zoneout",
]
