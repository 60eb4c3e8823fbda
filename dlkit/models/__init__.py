"""Recipes: functions that return layers, one family a file."""

from dlkit.models.cnn import cnn
from dlkit.models.language.beam import beam_search
from dlkit.models.language.bert import Bert, Bias, MaskedHead, bert
from dlkit.models.language.decoder import Decoder, gpt, llama
from dlkit.models.language.generate import generate, stream
from dlkit.models.language.sampling import GREEDY, Sampler
from dlkit.models.language.t5 import T5, t5
from dlkit.models.language.whisper import AudioEncoder, whisper_encoder
from dlkit.models.linear import linear
from dlkit.models.mlp import mlp
from dlkit.models.parts import ACTIVATIONS
from dlkit.models.resnet import PadShortcut, resnet20

__all__ = [
    "ACTIVATIONS",
    "GREEDY",
    "T5",
    "AudioEncoder",
    "Bert",
    "Bias",
    "Decoder",
    "MaskedHead",
    "PadShortcut",
    "Sampler",
    "beam_search",
    "bert",
    "cnn",
    "generate",
    "gpt",
    "linear",
    "llama",
    "mlp",
    "resnet20",
    "stream",
    "t5",
    "whisper_encoder",
]
