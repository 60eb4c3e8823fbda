"""Data: arrays by name, splits, a loader whose order is a pure function, prefetching, and real datasets."""

from dlkit.data.cifar import cifar10
from dlkit.data.dataset import Arrays
from dlkit.data.digits import digits
from dlkit.data.download import DownloadError
from dlkit.data.graphs import cora, karate_club
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
    "cifar10",
    "cora",
    "digits",
    "karate_club",
    "kfold",
    "mnist",
    "prefetch",
    "read_idx",
    "split",
]
