"""What `dlkit train` says before and after training, as plain text."""

import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["after", "header", "instead", "say", "table"]


def say(text: str = "") -> None:
    """Print, at once."""
    print(text, flush=True)  # noqa: T201


def table(values: Mapping[str, Any]) -> str:
    """Names and values, aligned."""
    from dlkit.wording import number

    width = max((len(name) for name in values), default=0)
    return "\n".join(f"  {name:<{width}}  {number(name, value)}" for name, value in values.items())


def header(parts: Any, source: str, folder: Path, overridden: Sequence[str] = ()) -> str:
    """Device, versions, the changes to the config, data, the parameter table, the arithmetic of batches."""
    import jax

    from dlkit import inspect
    from dlkit.config import build
    from dlkit.config.resolved import brief
    from dlkit.version import __version__
    from dlkit.wording import counted

    config = parts.config
    devices = jax.devices()
    kind = devices[0].device_kind if devices[0].platform != "cpu" else f"cpu, {_cores()} cores"
    shape = build.input_shape(config) or parts.training["x"].shape[1:]
    whole = (1, *shape) if isinstance(parts.task.inputs, str) else None  # a graph is more than one array
    summary = inspect.summary(parts.task.model, whole, dtype=parts.training["x"].dtype)
    sets = {"train": parts.training, "valid": parts.valid, "test": parts.test}
    sizes = [f"{len(held):,} {name}" for name, held in sets.items() if held is not None]
    field = parts.training["x"]
    n, size, steps = len(parts.training), config.train.batch_size, parts.steps_per_epoch
    lines = [f"dlkit {__version__}, jax {jax.__version__}, {len(devices)} x {kind}"]
    if config.train.platform == "auto" and devices[0].platform == "cpu" and not os.environ.get("JAX_PLATFORMS"):
        lines.append("note: jax sees no accelerator here, so this runs on the CPU (dlkit doctor says more)")
    asked = instead(parts)
    lines += [
        "",
        f"config   {source}",
        *(f"         {line}" for line in overridden),
        *(line for section in brief(config) for line in _wrapped(section)),
        f"run      {folder}",
        f"data     {config.data.name}: {', '.join(sizes)}; x {field.dtype}{list(field.shape[1:])}",
        *([f"note: {asked} is not here, so this runs on {parts.training.name} instead (data.fallback)"] * bool(asked)),
        f"batches  {n:,} / {size} = {counted(steps, 'update')} an epoch{_ragged(n, size)}, "
        f"x {counted(config.train.epochs, 'epoch')} = {counted(steps * config.train.epochs, 'update')}",
        f"model    {summary.parameters:,} parameters, {_flops(summary.flops)}",
        *_options(parts),
        "",
    ]
    rows = [
        (name, _short(layer), f"{count:,}")
        for name, layer in parts.task.model.children().items()
        if (count := sum(r.size for r in summary.rows if r.path.split("/")[0] == name and r.kind != "state"))
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else [0, 0, 0]
    lines += [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    return "\n".join(lines) + "\n"


def _wrapped(section: str) -> list[str]:
    return textwrap.wrap(section, 116, initial_indent=" " * 9, subsequent_indent=" " * 13, break_on_hyphens=False)


INSTEAD = {
    ("mnist", "digits"): "MNIST", ("cifar10", "digits"): "CIFAR-10", ("cora", "karate"): "Cora",
    ("text", "python source"): "tiny-shakespeare", ("pairs", "number words"): "eng-fra (English and French)",
}  # fmt: skip


def instead(parts: Any) -> str | None:
    """What the config asks for, where other data took its place (`data.fallback`)."""
    return INSTEAD.get((parts.config.data.name, parts.training.name or ""))


def _options(parts: Any) -> list[str]:
    """What decays and what is frozen, how numbers are kept, and how a batch is cut."""
    import jax

    from dlkit import tree
    from dlkit.config import build
    from dlkit.train.freezing import trainable

    spec, lines = parts.config.train, []
    params = jax.eval_shape(parts.task.model.init, jax.random.key(0))
    if (mask := build.decay_mask(parts.config.optimizer)) is not None:
        trained = trainable(params, jax.eval_shape(parts.task.model.init_state), spec.freeze)
        chosen = tree.flatten(tree.match_weights(trained, mask))
        sizes = {path: leaf.size for path, leaf in tree.flatten(trained).items()}
        count = sum(size for path, size in sizes.items() if chosen[path])
        lines.append(f"decay    {count:,} parameters decay ({', '.join(mask)}), {sum(sizes.values()) - count:,} do not")
    if spec.policy is not None:
        scaled = ", the loss scaled" if spec.policy.build().scales_loss else ""
        kept = spec.policy
        lines.append(f"dtypes   parameters {kept.param}, computed in {kept.compute}, outputs {kept.output}{scaled}")
    if spec.freeze:
        count = tree.count(tree.select(params, spec.freeze, required=False))
        lines.append(f"frozen   {count:,} of them: {', '.join(spec.freeze)}")
    if spec.accumulate > 1:
        size = spec.batch_size // spec.accumulate
        lines.append(f"parts    a batch is {spec.accumulate} micro-batches of {size}")
    return lines


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _ragged(n: int, size: int) -> str:
    return f" (the last of {n % size})" if n % size else ""


def _flops(n: int | None) -> str:
    return "FLOPs unknown" if n is None else f"{n:,} FLOPs an example"


def _short(layer: Any) -> str:
    from dlkit.nn.checks import describe

    text = describe(layer)
    return text if len(text) <= 60 else f"{text[:57]}..."


def after(folder: Path, source: str, overrides: Sequence[str], example: Path | None, epochs: int = 30) -> str:
    """Where everything is, and what to try next."""
    named = {
        "config.toml": "the resolved config",
        "metrics.jsonl": "loss and metrics",
        "model": "the trained model",
        "checkpoints": "states to resume from",
        "tensorboard": "events for TensorBoard",
        "learning_curves.png": "",
        "confusion_matrix.png": "",
        "misclassified.png": "",
        "reconstructions.png": "",
        "samples.png": "",
        "manifold.png": "",
        "latent.png": "",
        "attention.png": "",
        "sample.txt": "",
        "tokenizer.json": "",
    }
    there = [(str(folder / name), what) for name, what in named.items() if (folder / name).exists()]
    width = max((len(name) for name, _ in there), default=0)
    lines = ["saved", *(f"  {name:<{width}}  {what}".rstrip() for name, what in there), "", "next"]
    name = "longer" if folder.name != "longer" else "longer2"
    kept = [o for o in overrides if o.partition("=")[0].strip() not in ("train.epochs", "run.name")]
    run = quoted(folder)
    again = shlex.join([source, *kept, f"train.epochs={2 * epochs}", f"run.name={name}"])
    lines.append(f"  dlkit eval {run}")
    if (folder / "tokenizer.json").exists():
        lines.append(f"  dlkit generate {run} --prompt TEXT")
    if example is not None:
        lines.append(f"  dlkit predict {run} {quoted(example)}")
    lines.append(f"  dlkit summary {run}")
    lines.append(f"  dlkit train {again}")
    return "\n".join(lines)


def quoted(path: Path) -> str:
    """A path for the shell."""
    return shlex.quote(str(path))
