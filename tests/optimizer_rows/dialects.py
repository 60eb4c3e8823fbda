"""The transforms that only torch's and Keras's dialects use. Their other recipes are chains of what has its row."""

from dlkit import optim
from optimizer_rows.paths import ADAM, LR, at

RATE = [f"rate/{path}" for path in LR]
FACTORED = [*RATE, "row/w", "column/w", "full/w"]

RECIPES = {
    "torch_sgd": (optim.torch.sgd(0.03, 0.9, weight_decay=1e-4), at([], ["trace/w"], LR)),
    "torch_adagrad": (optim.torch.adagrad(0.5, lr_decay=1e-3), at(["sum_of_squares/w"], LR)),
    "torch_asgd": (optim.torch.asgd(0.1, weight_decay=1e-4), at([], [*RATE, "average/w"])),
    "torch_sparse_adam": (optim.torch.sparse_adam(0.1), at(ADAM, LR)),
    "torch_adafactor": (optim.torch.adafactor(0.3, weight_decay=1e-4), at(FACTORED, ["count"])),
    "keras_sgd": (
        optim.keras.sgd(0.03, 0.9, weight_decay=1e-4),
        at(["count", *(f"inner_state/{path}" for path in at(LR, ["trace/w"]))]),
    ),
    "keras_adam_clipped": (optim.keras.adam(0.1, clipnorm=1.0), at([], ADAM, LR)),
    "keras_adafactor": (optim.keras.adafactor(0.3), at(FACTORED)),
    "keras_ftrl": (
        optim.keras.ftrl(1.0, l2_shrinkage_regularization_strength=1e-4, beta=0.1),
        at([*RATE, "accumulator/w", "linear/w"]),
    ),
    # A vector is left to AdamW.
    "keras_muon": (
        optim.keras.muon(0.1, weight_decay=1e-4, adam_weight_decay=1e-4),
        [*(f"1/inner_state/{path}" for path in at(ADAM, [])), *(f"4/{path}" for path in LR)],
    ),
}

BLOCKS = {
    # For matrices only, of which the snapshot has none. In bfloat16, fusion decides what is rounded: jit and eager
    # execution differ.
    "torch_muon": (
        optim.masked(optim.torch.muon(0.1, dtype=None), optim.keras.ByMuon()),
        [f"inner_state/4/{path}" for path in LR],
    ),
}
