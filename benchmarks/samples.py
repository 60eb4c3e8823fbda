"""What a classifier sees in the pictures that a generative model draws: are they digits, and all ten of them?

    python benchmarks/samples.py runs/ddpm_mnist          the directory of a run of configs/ddpm_mnist.toml
    python benchmarks/samples.py runs/digits_ddpm [steps] [eta] [samples]

A perceptron of scikit-learn's is trained on at most 20,000 pictures of the training set. Printed: its accuracy on the
test set; how sure it is (the largest probability) of test pictures, of the samples (200), and of noise with the pixels'
own distribution; how many samples it takes for each class. Samples are made in `steps` (100) steps with `eta` (0: DDIM;
1000 and 1: ancestral).
"""

import sys
import time
import warnings

import jax
import numpy as np
from sklearn.neural_network import MLPClassifier

from dlkit import models
from dlkit.cli.runs import locate, restored
from dlkit.config.assemble import assemble

KNOWN = 20_000


def flat(x: np.ndarray) -> np.ndarray:
    grey = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
    return grey.reshape(len(x), -1)


def main(run: str, steps: str = "100", eta: str = "0", samples: str = "200") -> None:
    folder, config = locate(run)
    parts = assemble(config)
    model = parts.task.model
    params, state, source = restored(folder, model)
    print(source)
    started = time.perf_counter()
    key = jax.random.key(1)
    if isinstance(model, models.Diffusion):
        n, visited = int(samples), int(steps)
        drawn = jax.jit(lambda key: model.sample(params, state, key, n, steps=visited, eta=float(eta)))(key)
    else:
        z = jax.random.normal(key, (int(samples), model.latent))
        drawn = jax.nn.sigmoid(model.decode(params, state, z))
    made = flat(np.asarray(drawn))
    print(f"{len(made)} samples in {time.perf_counter() - started:.0f} s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged after so many epochs
        classifier = MLPClassifier((256,), max_iter=15 if len(parts.training) > 10_000 else 200, random_state=0)
        classifier.fit(flat(parts.training.x[:KNOWN]), parts.training.y[:KNOWN])
    test = flat(parts.test.x)
    print(f"the classifier: {100 * classifier.score(test, parts.test.y):.2f} % of {len(test):,} test pictures")
    noise = np.random.default_rng(0).choice(test.ravel(), made.shape)
    for name, x in {"test pictures": test, "samples": made, "noise": noise}.items():
        sure = classifier.predict_proba(x).max(1)
        print(f"{name}: {100 * sure.mean():.1f} % sure on average, above 90 % for {100 * (sure > 0.9).mean():.1f} %")
    print("samples a class:", np.bincount(classifier.predict(made), minlength=10).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:])
