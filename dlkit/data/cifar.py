"""CIFAR-10 from archives of JPEG files: 60,000 color pictures of 32 x 32 in ten classes.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import io
import os
import zipfile
from typing import Literal

import numpy as np

from dlkit.data.dataset import Arrays
from dlkit.data.places import find

__all__ = ["cifar10"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LARGEST = 1 << 20  # bytes of one picture; those of CIFAR have about a thousand


def cifar10(
    split: Literal["train", "test"] = "train",
    root: str | os.PathLike[str] | None = None,
    *,
    per_class: int | None = None,
) -> Arrays:
    """CIFAR-10's 50,000 training or 10,000 test pictures: x uint8 `[N, 32, 32, 3]`, y int32 `[N]`, class after class.

    Read from `train.zip` and `test.zip` with one folder of JPEG files for each class (`cat/0001.jpg`), in `root`,
    `$DLKIT_DATA/cifar10_jpeg` or `$DLKIT_DATA`. Nothing is downloaded. JPEG is lossy, so accuracies are a little below
    those on the original pictures.

    Args:
      split: the part.
      root: the folder of the archives.
      per_class: at most so many pictures of each class, the first by name: decoding all takes a while.

    Raises:
      ValueError: `split` is neither "train" nor "test"; the archive holds something else; `per_class` below 1.
      FileNotFoundError: there is no archive; the message lists the places.
      ImportError: pillow is missing.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}')
    if per_class is not None and per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    name, fix = (
        f"{split}.zip",
        "Put the archives of JPEG files, a folder for each class, into one of these, or give root=",
    )
    path = find(name, "cifar10_jpeg", root, what=f"CIFAR-10's {name}", fix=fix)
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("cifar10() reads JPEG files and needs pillow: pip install pillow") from error
    pictures, labels = [], []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg")))
        for label, word in enumerate(CLASSES):
            own = [name for name in names if name.split("/")[-2:-1] == [word]][:per_class]
            if not own:
                raise ValueError(f"{path} has no JPEG file in a folder {word!r}: expected one folder for each class")
            for name in own:
                if archive.getinfo(name).file_size > LARGEST:
                    raise ValueError(f"{path}: {name} is larger than {LARGEST} bytes: expected pictures of 32 x 32")
                with Image.open(io.BytesIO(archive.read(name)), formats=("JPEG",)) as image:
                    if image.size != (32, 32):
                        raise ValueError(f"{path}: {name} has {image.size} pixels, expected 32 x 32")
                    pictures.append(np.asarray(image.convert("RGB")))
                labels.append(label)
    return Arrays(name=f"cifar10/{split}", classes=CLASSES, x=np.stack(pictures), y=np.asarray(labels, np.int32))
