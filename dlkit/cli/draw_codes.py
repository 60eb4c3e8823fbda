"""The pictures of an autoencoder's run: reconstructions; of what generates, samples; of a VAE the latent plane, too."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["draw_codes"]

SHOWN, SAMPLES, SIDE = 12, 100, 20


def draw_codes(folder: Path, model: Any, params: Any, state: Any, test: Any) -> list[Path]:
    """Draw what an autoencoder makes of the test set's first pictures, and what its codes stand for."""
    import jax

    from dlkit import inspect, models, nn, train
    from dlkit.train.policy import plain

    model, params = plain(model, params)
    x = np.asarray(test["x"])
    pictures = x[:SHOWN].astype(np.float32) / (255 if x.dtype == np.uint8 else 1)

    def shown(logits: Any) -> np.ndarray:
        return np.asarray(jax.nn.sigmoid(np.asarray(logits)))

    name = folder.name
    if isinstance(model, models.Diffusion):
        steps = min(SAMPLES, model.schedule.steps)  # all of them, ancestrally, would take ten times as long
        sample = jax.jit(lambda key: model.sample(params, state, key, SAMPLES, steps=steps, eta=0.0))
        drawn = np.asarray(sample(jax.random.key(0)))
        return [inspect.picture_grid(drawn, folder / "samples.png", gap=1, title=f"{name}, samples")]
    if not isinstance(model, models.VAE):
        path = folder / "reconstructions.png"
        noisy = [part for part in ("mask", "noise") if part in model.children()]
        if not noisy:
            logits = train.predict(model, params, state, x[:SHOWN], batch_size=SHOWN)
            return [inspect.reconstructions(pictures, shown(logits), path, title=name)]
        # In training it sees a corrupted input: that is what it has learned to mend.
        at, mode = [noisy[-1], "decoder"], nn.training(jax.random.key(0))
        found = jax.jit(lambda x: models.features(model, params, state, x, at, mode))(x[:SHOWN])
        seen, rebuilt = np.asarray(found[noisy[-1]]), shown(found["decoder"])
        return [inspect.reconstructions(pictures, rebuilt, path, seen=seen, title=name)]
    decode = jax.jit(lambda z: model.decode(params, state, z))
    outputs = train.predict(model, params, state, x)
    rebuilt = shown(decode(outputs.mean[:SHOWN]))
    made = [inspect.reconstructions(pictures, rebuilt, folder / "reconstructions.png", title=name)]
    drawn = jax.random.normal(jax.random.key(0), (SAMPLES, model.latent))
    made.append(inspect.picture_grid(shown(decode(drawn)), folder / "samples.png", title=f"{name}, samples"))
    if model.latent == 2:
        plane = inspect.latent_plane(SIDE)
        made.append(inspect.picture_grid(shown(decode(plane)), folder / "manifold.png", title=f"{name}, plane of z"))
        scatter = inspect.latent_scatter
        path, title = folder / "latent.png", f"{name}, test set"
        made.append(scatter(outputs.mean, test["y"], path, classes=test.classes, title=title))
    return made
