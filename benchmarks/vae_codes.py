"""What the codes of a variational autoencoder are worth, beside the principal components.

    python benchmarks/vae_codes.py runs/vae_mnist          the directory of a run of configs/vae_mnist.toml

Prints the ELBO and the importance-weighted bound of the test set in nats, and the accuracy of the 5 nearest neighbours
(scikit-learn's) on the codes' means and on as many principal components, neighbours from the training set.
"""

import sys

import jax
import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from dlkit import models, train
from dlkit.cli.runs import locate, restored
from dlkit.config.assemble import assemble

SAMPLES = 100


def as_grey(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x


def main(run: str) -> None:
    folder, config = locate(run)
    parts = assemble(config)
    params, state, source = restored(folder, parts.task.model)
    model, test = parts.task.model, parts.test
    print(source)
    elbo = -train.evaluate(parts.task, params, state, test, batch_size=500)["loss"]
    print(f"ELBO {elbo:.2f} nats over {len(test):,} test pictures")
    front = model.encoder  # bytes are rescaled in front of it

    @jax.jit
    def bound(x, key):
        return models.importance_bound(model, params, state, x, key, SAMPLES)

    grey = as_grey(test.x)
    rescaled = "rescale" in front.children()
    if rescaled:  # the bound compares with numbers in [0, 1], and the encoder would divide them again
        inner = {k: v for k, v in params["encoder"].items() if k != "rescale"}
        layers = {k: v for k, v in front.children().items() if k != "rescale"}
        model, params = models.VAE(type(front)(**layers), model.decoder, model.latent), {**params, "encoder": inner}
    values = [np.asarray(bound(grey[i : i + 500], jax.random.key(i))) for i in range(0, len(grey), 500)]
    print(f"bound of {SAMPLES} importance samples {np.concatenate(values).mean():.2f} nats")

    def codes(x):
        encode = jax.jit(lambda x: model.encode(params, state, x)[0])
        return np.concatenate([np.asarray(encode(as_grey(x[i : i + 500]))) for i in range(0, len(x), 500)])

    known, asked = parts.training.x, test.x
    flat = [as_grey(a).reshape(len(a), -1) for a in (known, asked)]
    pca = PCA(model.latent, random_state=0).fit(flat[0])
    for name, (a, b) in {
        "codes": (codes(known), codes(asked)),
        "principal components": tuple(pca.transform(x) for x in flat),
    }.items():
        knn = KNeighborsClassifier(5).fit(a, parts.training.y)
        print(f"5 nearest neighbours on {model.latent} {name}: {100 * knn.score(b, test.y):.2f} %")


if __name__ == "__main__":
    main(sys.argv[1])
