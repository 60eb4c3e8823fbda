"""What is said and saved at the end of a run on text: a sample, accuracy beside baselines, translations."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["baselines", "ending", "translated"]

SHOWN = 5  # translations


def ending(parts: Any, params: Any, folder: Path) -> tuple[str, dict[str, Any]]:
    """What to print, and what `result.json` keeps, for a run whose data is text or pairs."""
    from dlkit import train

    model = parts.config.model.name
    held = parts.valid if parts.test is None else parts.test
    lines: list[str] = []
    told: dict[str, Any] = {}
    if parts.test is None and held is not None:
        values = train.evaluate(parts.task, params, None, held, batch_size=parts.eval_batch_size)
        told["valid"] = values
        characters = "hidden characters" if model == "bert" else "characters"
        lines.append(f"validation: {values['loss']:.4f} nats a character, of {_count(parts, held):,} {characters}")
    if model == "bert":
        found = baselines(parts.training.y, held) if held is not None else {}
        told["baselines"] = found
        lines += [f"  {100 * share:5.2f} %  {name}" for name, share in found.items()]
        if held is not None and "accuracy" in told["valid"]:
            lines.append(f"  {100 * told['valid']['accuracy']:5.2f} %  this model")
    elif parts.task.inputs == "x":
        sample = _sample(parts, params)
        (folder / "sample.txt").write_text(sample, encoding="utf-8")
        lines += ["", "a sample (sample.txt), temperature 0.8:", *(f"  {line}" for line in sample.splitlines())]
    else:
        lines += _translations(parts, params, folder, told)
    return "\n".join(lines), told


def _plain(parts: Any) -> Any:
    """The model without `train.policy`: what it remembers has the dtype of the parameters."""
    from dlkit.config import build

    return build.model(parts.config)


def _count(parts: Any, held: Any) -> int:
    return int(held["masked"].sum()) if "masked" in held else held["y"].size


def _sample(parts: Any, params: Any) -> str:
    import jax
    import jax.numpy as jnp

    from dlkit import models

    model, tokenizer = _plain(parts), parts.tokenizer
    limit = getattr(getattr(model, "positions", None), "length", None)
    first = parts.training.x[:1, :1]
    steps = 300 if limit is None else min(300, limit)
    ids = models.generate(
        model, params, jnp.asarray(first), steps, key=jax.random.key(0), sampler=models.Sampler(temperature=0.8)
    )
    return tokenizer.decode(np.asarray(ids)[0])


def baselines(text: np.ndarray, held: Any) -> dict[str, float]:
    """The share of the hidden tokens of `held` that counts of the training windows `[n, T]` alone would guess.

    The pairs are counted within windows; the neighbours that they are asked with are the true ones, hidden or not.
    """
    size = int(max(text.max(), held["x"].max())) + 1
    pairs = np.zeros((size, size), np.int64)
    np.add.at(pairs, (text[:, :-1].ravel(), text[:, 1:].ravel()), 1)
    single = np.bincount(text.ravel(), minlength=size)
    x, masked = held["x"], held["masked"]
    left = np.vstack([pairs, single])[np.pad(x, ((0, 0), (1, 0)), constant_values=size)[:, :-1][masked]]
    # p(c | left) p(right | c): a character at the end of a window has no right neighbour.
    after = np.hstack([(pairs + 0.1) / (pairs + 0.1).sum(1, keepdims=True), np.ones((size, 1))])
    right = after[:, np.pad(x, ((0, 0), (0, 1)), constant_values=size)[:, 1:][masked]].T
    wanted = x[masked]
    return {
        "the most frequent character": float((wanted == single.argmax()).mean()),
        "the most frequent one after the left neighbour": float((wanted == left.argmax(1)).mean()),
        "the likeliest one between both neighbours": float((wanted == ((left + 0.1) * right).argmax(1)).mean()),
    }


def translated(parts: Any, params: Any, held: Any, batch: int = 64) -> list[list[int]]:
    """Greedy translations of the sources of `held`: ids without `<end>` and what follows."""
    import jax
    import jax.numpy as jnp

    from dlkit import models

    tokenizer = parts.tokenizer
    decoder = models.Conditioned(_plain(parts).body)
    condition = jax.jit(lambda p, source: decoder.condition(p, source, tokenizer.pad))
    start, found = jnp.full((batch, 1), tokenizer.start, jnp.int32), []
    for at in range(0, len(held), batch):
        source = np.resize(held["source"][at : at + batch], (batch, held["source"].shape[1]))
        steps = held["y"].shape[1]
        ids = models.generate(decoder, condition(params, jnp.asarray(source)), start, steps, end=tokenizer.end)
        found += [_until(row, tokenizer.end) for row in np.asarray(ids).tolist()[: len(held) - at]]
    return found


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _translations(parts: Any, params: Any, folder: Path, told: dict[str, Any]) -> list[str]:
    from dlkit import metrics

    tokenizer, lines = parts.tokenizer, []
    for name, held in (("train", parts.training[:200]), ("test", parts.test)):
        if held is None:
            continue
        known = _references(parts, tokenizer)
        sources = [tuple(row) for row in held["source"].tolist()]
        once = sorted(set(sources), key=sources.index)
        rows = held.take([sources.index(source) for source in once])
        guesses = translated(parts, params, rows)
        people = [known[source] for source in once]
        exact = float(np.mean([guess in some for guess, some in zip(guesses, people, strict=True)]))
        told[name] = {"bleu": metrics.bleu(guesses, people), "exact": exact, "sources": len(once)}
        lines.append(
            f"{name}: BLEU {100 * told[name]['bleu']:.1f}, {100 * exact:.1f} % exact, of {len(once):,} sources"
            + (" (the first pairs)" if name == "train" else "")
        )
        if name == "test" or parts.test is None:
            for source, guess, some in list(zip(once, guesses, people, strict=True))[:SHOWN]:
                known_as = " / ".join(tokenizer.decode([max(i, 0) for i in one]) or "?" for one in some[:2])
                lines.append(f"  {tokenizer.decode(source)} -> {tokenizer.decode(guess)}   ({known_as})")
    _draw_attention(parts, params, folder)
    return lines


def _references(parts: Any, tokenizer: Any) -> dict[tuple[int, ...], list[list[int]]]:
    """Every translation of each source of the data; an unknown word is one that no guess equals (-1)."""
    known: dict[tuple[int, ...], list[list[int]]] = {}
    for held in (parts.training, parts.valid, parts.test):
        for source, y in zip(*(held[k].tolist() for k in ("source", "y")), strict=True) if held is not None else ():
            words = [-1 if i == tokenizer.unknown else i for i in _until(y, tokenizer.end)]
            known.setdefault(tuple(source), []).append(words)
    return known


def _draw_attention(parts: Any, params: Any, folder: Path) -> None:
    import jax.numpy as jnp

    from dlkit import inspect

    body, tokenizer = _plain(parts).body, parts.tokenizer
    held = parts.training if parts.test is None else parts.test
    if not hasattr(body, "attention_weights") or not parts.config.train.plots:
        return
    longest = int((held["source"] != tokenizer.pad).sum(1).argmax())
    row = held[longest : longest + 1]
    guess = translated(parts, params, row, 1)[0]
    source = [*_until(row["source"][0].tolist(), tokenizer.end), tokenizer.end]
    weights = body.attention_weights(params, jnp.asarray([[tokenizer.start, *guess]]), jnp.asarray([source]))
    words = [[tokenizer.decode([i]) or "<end>" for i in ids] for ids in (source, [*guess, tokenizer.end])]
    inspect.attention_map(weights[0], words[0], words[1], folder / "attention.png", title=folder.name)
