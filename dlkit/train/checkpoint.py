"""Checkpoints: trees of arrays with JSON beside them, in directories that are complete or absent."""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlkit.train import files
from dlkit.train.files import CheckpointError, CheckpointWarning
from dlkit.train.leaves import decode, encode, into
from dlkit.version import __version__

__all__ = ["CheckpointError", "CheckpointWarning", "Saved", "latest", "read", "restore", "save"]

FORMAT = 1
TENSORS = "state.safetensors"


@dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint that was read and verified: what it holds, not yet in a tree."""

    path: Path
    step: int
    metadata: dict[str, Any]
    leaves: dict[str, dict[str, Any]]  # dtype, shape and, for PRNG keys, the implementation, by path
    arrays: dict[str, np.ndarray]

    def into(self, template: Any, *, ignore: Sequence[str] = (), any_shape: Sequence[str] = ()) -> Any:
        """A tree like `template` with the saved values; see `restore`. `ignore`: globs of paths it may lack."""
        where = f"{self.path.name} in {self.path.parent}"
        return into(template, self.arrays, self.leaves, ignore=ignore, any_shape=any_shape, where=where)


def save(directory: str | Path, step: int, tree: Any, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a tree and its metadata as `directory/step_00000100`. When this returns it is on the disk, whole.

    A process killed at any moment leaves this step whole or absent, and all others as they were. A step of this number
    that is there already is replaced.

    Args:
      directory: made if it is missing.
      step: not negative.
      tree: any pytree of arrays, numbers and PRNG keys: float, bfloat16, integer and boolean.
      metadata: what `json` can write; numbers that are not finite come back as they were.

    Returns:
      The path of the step.

    Raises:
      CheckpointError: a leaf or the metadata cannot be saved, or the system refused (disk full, no permission, ...).

    >>> import jax.numpy as jnp, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = save(folder, 3, {"w": jnp.ones(2)}, {"note": "third"})
    >>> path.name, restore(path, {"w": jnp.zeros(2)})
    ('step_00000003', ({'w': Array([1., 1.], dtype=float32)}, {'note': 'third'}))
    """
    if step < 0:
        raise CheckpointError(f"a step is not negative, got {step}")
    try:
        content, about = encode(tree)
    except RuntimeError as error:
        if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(tree)):
            raise CheckpointError("this state was donated to a step; save the state that the step returned") from None
        raise CheckpointError(f"step {step} cannot be saved: {error}") from error
    try:
        metadata = json.loads(json.dumps(files.strict(dict(metadata or {})), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the metadata of step {step} cannot be written as JSON: {error}") from None
    manifest = {
        "format": FORMAT,
        "leaves": about,
        "metadata": metadata,
        "versions": {
            "dlkit": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": sys.version.split()[0],
        },
    }
    return files.write_step(directory, step, {TENSORS: content}, manifest)


def read(path: str | Path) -> Saved:
    """Read and verify one checkpoint, without a template.

    Raises:
      CheckpointError: as `restore`.
    """
    path = Path(path)
    manifest, contents = files.read_step(path)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{path.name} in {path.parent} has format {manifest.get('format')!r}, and this dlkit {__version__} reads "
            f"format {FORMAT}: read it with the dlkit that wrote it, {manifest.get('versions', {}).get('dlkit')}"
        )
    try:
        arrays = decode(contents[TENSORS], manifest["leaves"])
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {TENSORS} in {path}: {error}") from None
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name}: {files.MANIFEST} in {path} lacks {error}") from None
    return Saved(path, manifest["step"], files.loose(manifest["metadata"]), manifest["leaves"], arrays)


def restore(path: str | Path, template: Any) -> tuple[Any, dict[str, Any]]:
    """The tree and the metadata of a checkpoint. Nothing is changed in place, and nothing on the disk.

    Args:
      path: one step, as `save` and `latest` return it.
      template: a tree with the structure that was saved: arrays, or `jax.eval_shape` of what makes them. The result has
        exactly its containers (named tuples, dataclasses, tuples, None, empty ones), dtypes and strong types, so a
        compiled step that took the template takes the result. PRNG keys keep the implementation that was saved. A leaf
        with a sharding is put there, whatever the devices it was saved from.

    Raises:
      CheckpointError: a file is damaged, missing or one too many; a leaf is missing, unexpected, or of another shape or
        dtype. Nothing is cast.
    """
    saved = read(path)
    return saved.into(template), saved.metadata


def newest(directory: str | Path) -> Saved | None:
    """As `latest`, already read."""
    damaged: list[str] = []
    for step in sorted(found := files.steps(directory), reverse=True):
        try:
            saved = read(found[step])
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(
                f"going back to {saved.path.name}, the newest whole checkpoint, as {'; '.join(damaged)}",
                CheckpointWarning,
                stacklevel=3,
            )
        return saved
    if damaged:
        shown = "\n".join(damaged[:8])
        raise CheckpointError(f"none of the {len(damaged)} checkpoints in {directory} can be read:\n{shown}")
    return None


def latest(directory: str | Path) -> Path | None:
    """The newest checkpoint whose every byte is as it was saved, or None where there is none.

    Damaged ones that are newer are passed over with one `CheckpointWarning` that names them.

    Raises:
      CheckpointError: there are checkpoints, and each is damaged.
    """
    saved = newest(directory)
    return None if saved is None else saved.path
