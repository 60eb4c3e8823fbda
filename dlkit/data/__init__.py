"""Data: arrays by name, splits, a loader whose order is a pure function, prefetching, and real datasets."""

from dlkit.data.dataset import Arrays
from dlkit.data.digits import digits
from dlkit.data.download import DownloadError
from dlkit.data.idx import ChecksumError, IdxError, read_idx
from dlkit.data.loader import Loader
from dlkit.data.mnist import mnist
from dlkit.data.prefetch import prefetch
from dlkit.data.split import kfold, split

__all__ = [
    "Arrays",
    "ChecksumError",
    "DownloadError",
    "IdxError",
    "Loader",
    "digits",
    "kfold",
    "mnist",
    "prefetch",
    "read_idx",
    "split",
]
