"""Greedy layer-wise pretraining against random initialization, with few labels: MNIST, 10 seeds.

    DLKIT_DATA=... python benchmarks/pretraining.py [labels] [unlabelled]

A 784-256-256-256-10 perceptron of sigmoids is trained on `labels` (100) pictures, once from random weights and once
from weights that `train.pretrain` (denoising) has made of `unlabelled` (10,000) other ones. Prints both accuracies,
and the mean difference with its 95 % interval over seeds (paired, Student's t).
"""

import sys

import jax
import numpy as np
from scipy import stats

from dlkit import data, losses, metrics, models, optim, train

SEEDS = 10


def main(labels: int = 100, unlabelled: int = 10_000) -> None:
    whole, test = data.mnist("train"), data.mnist("test")

    def flat(ds, rows):
        x = ds.x[rows].reshape(len(rows), -1).astype(np.float32) / np.float32(255)
        return data.Arrays(x=x, y=ds.y[rows])

    asked = flat(test, np.arange(len(test)))
    model = models.mlp((784, 256, 256, 256, 10), "sigmoid")
    task = train.Task(model, losses.cross_entropy, {"accuracy": metrics.Accuracy()})
    found = []
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(len(whole))
        few, many = flat(whole, order[:labels]), flat(whole, order[labels : labels + unlabelled])
        fresh = model.init(jax.random.key(seed))
        made = train.pretrain(model, fresh, many, optim.adam(1e-3), epochs=10, batch_size=128, mask=0.25, seed=seed)
        row = []
        for params in (fresh, made):
            optimizer = optim.adam(1e-3)
            state = train.create_state(model, optimizer, jax.random.key(seed))._replace(params=params)
            batch = min(64, labels)
            result = train.fit(
                task, optimizer, few, epochs=20_000 // labels, batch_size=batch, seed=seed, state=state,
                log_every=10**6,
            )  # fmt: skip
            row.append(train.evaluate(task, result.state.params, None, asked, batch_size=1000)["accuracy"])
        found.append(row)
        print(f"seed {seed}: random {100 * row[0]:.2f} %, pretrained {100 * row[1]:.2f} %", flush=True)
    gain = 100 * np.diff(np.array(found), axis=1)[:, 0]
    half = stats.t.ppf(0.975, SEEDS - 1) * gain.std(ddof=1) / SEEDS**0.5
    means = 100 * np.array(found).mean(0)
    print(
        f"{labels} labels: random {means[0]:.2f} %, pretrained {means[1]:.2f} %; gain {gain.mean():.2f} +- {half:.2f}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
