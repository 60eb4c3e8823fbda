"""Data: arrays by name, splits, a loader whose order is a pure function, prefetching, and real datasets."""

from dlkit.data.cifar import cifar10
from dlkit.data.copying import copy_task
from dlkit.data.dataset import Arrays
from dlkit.data.digits import digits
from dlkit.data.download import DownloadError
from dlkit.data.graphs import cora, karate_club
from dlkit.data.idx import ChecksumError, IdxError, read_idx
from dlkit.data.loader import Loader
from dlkit.data.mnist import mnist
from dlkit.data.prefetch import prefetch
from dlkit.data.split import kfold, split
from dlkit.data.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer

__all__ = [
    "Arrays",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "ChecksumError",
    "DownloadError",
    "IdxError",
    "Loader",
    "Tokenizer",
    "cifar10",
    "copy_task",
    "cora",
    "digits",
    "karate_club",
    "kfold",
    "load_tokenizer",
    "mnist",
    "prefetch",
    "read_idx",
    "split",
]
