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
from dlkit.data.pairs import english_french, number_words, pair_arrays, read_pairs
from dlkit.data.prefetch import prefetch
from dlkit.data.split import kfold, split
from dlkit.data.text import python_source, tiny_shakespeare, windows
from dlkit.data.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer
from dlkit.data.word_tokenizer import WordTokenizer

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
    "WordTokenizer",
    "cifar10",
    "copy_task",
    "cora",
    "digits",
    "english_french",
    "karate_club",
    "kfold",
    "load_tokenizer",
    "mnist",
    "number_words",
    "pair_arrays",
    "prefetch",
    "python_source",
    "read_idx",
    "read_pairs",
    "split",
    "tiny_shakespeare",
    "windows",
]
