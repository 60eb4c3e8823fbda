"""MNIST: 70,000 handwritten digits of 28 x 28 grey values.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
"""

import os
from pathlib import Path
from typing import Literal

import numpy as np

from dlkit.data.dataset import Arrays
from dlkit.data.download import DownloadError, cache_folder, fetch
from dlkit.data.idx import IdxError, read_idx
from dlkit.data.places import places

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# SHA-256 and size of the unpacked files: gzip containers of the same bytes differ from mirror to mirror.
FILES = {
    "train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47040016),
    "train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60008),
    "t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7840016),
    "t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10008),
}


def mnist(split: Literal["train", "test"] = "train", root: str | os.PathLike[str] | None = None) -> Arrays:
    """MNIST's 60,000 training or 10,000 test digits: x uint8 `[N, 28, 28, 1]` in 0 .. 255, y int32 `[N]`.

    The IDX files, packed with gzip or not, are looked for in `root`, `$DLKIT_DATA/mnist`, `$DLKIT_DATA` and the user's
    cache (`$XDG_CACHE_HOME/dlkit/mnist` or `~/.cache/dlkit/mnist`). Files that are found nowhere are downloaded into
    `root` if it is given, else into the cache; `DLKIT_OFFLINE=1` forbids it. Wherever they come from, their unpacked
    bytes must have the SHA-256 of the published files. Files of the same format with other contents are read by
    `read_idx`. Unlike torchvision's, images stay arrays, and have their channel last.

    Raises:
        ValueError: `split` is neither "train" nor "test".
        ChecksumError, IdxError: a file that was found is not the published one.
        DownloadError: not found, and no mirror could be reached or gave the right bytes.
    """
    stem = {"train": "train", "test": "t10k"}.get(split)
    if stem is None:
        raise ValueError(
            f'split must be "train" or "test", got {split!r}; for a validation set divide "train" by split()'
        )
    images = _load(f"{stem}-images-idx3-ubyte", root)
    labels = _load(f"{stem}-labels-idx1-ubyte", root)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise IdxError(f"images {images.shape} and labels {labels.shape} do not belong together")
    classes = tuple(str(k) for k in range(10))
    return Arrays(name=f"mnist/{split}", classes=classes, x=images[..., None], y=labels.astype(np.int32))


def folders(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Where the files are looked for, in this order."""
    return [*places("mnist", root), cache_folder("mnist")]


def _load(name: str, root: str | os.PathLike[str] | None) -> np.ndarray:
    sha256, size = FILES[name]
    looked = folders(root)
    names = [f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    for path in (folder / file for folder in looked for file in names):
        if path.is_file():
            return read_idx(path, max_bytes=size, sha256=sha256)
    target = (looked[0] if root is not None else looked[-1]) / name
    try:
        fetch([f"{mirror}{name}.gz" for mirror in MIRRORS], target, sha256=sha256, size=size, gzipped=True)
    except DownloadError as error:
        shown = "\n".join(f"  {place}" for place in looked)
        raise DownloadError(
            f"MNIST's file {name} (or {name}.gz) was looked for in\n{shown}\nand could not be downloaded: {error}\n"
            "Put the four files of MNIST into one of these folders, or set DLKIT_DATA to the folder that holds them"
        ) from error
    return read_idx(target, max_bytes=size, sha256=sha256)
