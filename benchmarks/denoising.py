"""A denoising autoencoder beside the principal components of equal width, on MNIST.

    python benchmarks/denoising.py runs/denoising_mnist       the directory of a run of configs/denoising_mnist.toml

Prints the mean squared error a pixel of the clean test pictures rebuilt, by either from clean pictures, and from
pictures half of whose pixels are hidden (those that stay doubled, as in training); and the accuracy of the 5 nearest
neighbours (scikit-learn's) on the codes of clean pictures, neighbours from the training set.
"""

import sys

import jax
import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from dlkit import models, nn
from dlkit.cli.runs import locate, restored
from dlkit.config.assemble import assemble


def grey(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x


def main(run: str) -> None:
    folder, config = locate(run)
    parts = assemble(config)
    model = parts.task.model
    params, state, source = restored(folder, model)
    print(source)
    mask = config.model.mask
    known, clean = grey(parts.training.x), grey(parts.test.x)
    kept = np.random.default_rng(0).random(clean.shape) >= mask
    hidden = (clean * kept / (1 - mask)).astype(np.float32)
    body = nn.Chain(encoder=model["encoder"], decoder=model["decoder"])

    @jax.jit
    def both(x):
        found = models.features(body, params, state, x, at=["encoder", "decoder"])
        return found["encoder"], jax.nn.sigmoid(found["decoder"])

    def run_over(x):
        made = [jax.device_get(both(x[i : i + 500])) for i in range(0, len(x), 500)]
        return tuple(np.concatenate(each) for each in zip(*made, strict=True))

    width = config.model.latent
    pca = PCA(width, random_state=0).fit(known.reshape(len(known), -1))
    for name, x in {"clean pictures": clean, f"{100 * mask:.0f} % hidden": hidden}.items():
        linear = pca.inverse_transform(pca.transform(x.reshape(len(x), -1))).reshape(x.shape).clip(0, 1)
        errors = [float(np.square(y - clean).mean()) for y in (run_over(x)[1], linear)]
        print(f"from {name}: autoencoder {errors[0]:.4f}, {width} principal components {errors[1]:.4f}")
    for name, (a, b) in {
        "codes": (run_over(known)[0], run_over(clean)[0]),
        "principal components": tuple(pca.transform(x.reshape(len(x), -1)) for x in (known, clean)),
    }.items():
        knn = KNeighborsClassifier(5).fit(a, parts.training.y)
        print(f"5 nearest neighbours on {width} {name}: {100 * knn.score(b, parts.test.y):.2f} %")


if __name__ == "__main__":
    main(sys.argv[1])
