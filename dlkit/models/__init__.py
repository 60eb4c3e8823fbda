"""Recipes: functions that return layers, one family a file; models by name; looking into one."""

from dlkit.models.autoencoder import autoencoder, conv_autoencoder, vae
from dlkit.models.cnn import cnn
from dlkit.models.diffusion import Diffusion, DiffusionOutputs, NoiseSchedule
from dlkit.models.graph import NodeOutputs, gat, gcn, graph_sage
from dlkit.models.language.beam import beam_search
from dlkit.models.language.bert import Bert, Bias, MaskedHead, bert
from dlkit.models.language.decoder import Decoder, gpt, llama
from dlkit.models.language.generate import generate, stream
from dlkit.models.language.masked import MaskedLM, MaskedOutputs, choose_masked
from dlkit.models.language.recurrent import rnn_lm
from dlkit.models.language.sampling import GREEDY, Sampler
from dlkit.models.language.seq2seq import Conditioned, Seq2Seq, Translator, seq2seq
from dlkit.models.language.t5 import T5, t5
from dlkit.models.language.whisper import AudioEncoder, whisper_encoder
from dlkit.models.linear import linear
from dlkit.models.mlp import mlp
from dlkit.models.parts import ACTIVATIONS
from dlkit.models.registry import create
from dlkit.models.registry import list_models as list
from dlkit.models.surgery import features, with_head
from dlkit.models.time_unet import PixelAttention, TimeBlock, TimeUNet, ddpm, time_unet
from dlkit.models.vae import VAE, VAEOutputs, importance_bound
from dlkit.models.vision.branches import AuxHeads, Branches
from dlkit.models.vision.convnext import convnext, convnext_names
from dlkit.models.vision.densenet import densenet, densenet_names
from dlkit.models.vision.inception import inception_v1, inception_v3
from dlkit.models.vision.inception_names import inception_v1_names, inception_v3_names
from dlkit.models.vision.mobilenet import mobilenet_v2, mobilenet_v2_names
from dlkit.models.vision.resnet import resnet, resnet_names
from dlkit.models.vision.resnet_cifar import PadShortcut, resnet20
from dlkit.models.vision.unet import unet
from dlkit.models.vision.vgg import alexnet, alexnet_names, vgg, vgg_names
from dlkit.models.vision.vit import ClassToken, First, ImagePositions, vit, vit_names

__all__ = [
    "ACTIVATIONS",
    "GREEDY",
    "T5",
    "VAE",
    "AudioEncoder",
    "AuxHeads",
    "Bert",
    "Bias",
    "Branches",
    "ClassToken",
    "Conditioned",
    "Decoder",
    "Diffusion",
    "DiffusionOutputs",
    "First",
    "ImagePositions",
    "MaskedHead",
    "MaskedLM",
    "MaskedOutputs",
    "NodeOutputs",
    "NoiseSchedule",
    "PadShortcut",
    "PixelAttention",
    "Sampler",
    "Seq2Seq",
    "TimeBlock",
    "TimeUNet",
    "Translator",
    "VAEOutputs",
    "alexnet",
    "alexnet_names",
    "autoencoder",
    "beam_search",
    "bert",
    "choose_masked",
    "cnn",
    "conv_autoencoder",
    "convnext",
    "convnext_names",
    "create",
    "ddpm",
    "densenet",
    "densenet_names",
    "features",
    "gat",
    "gcn",
    "generate",
    "gpt",
    "graph_sage",
    "importance_bound",
    "inception_v1",
    "inception_v1_names",
    "inception_v3",
    "inception_v3_names",
    "linear",
    "list",
    "llama",
    "mlp",
    "mobilenet_v2",
    "mobilenet_v2_names",
    "resnet",
    "resnet20",
    "resnet_names",
    "rnn_lm",
    "seq2seq",
    "stream",
    "t5",
    "time_unet",
    "unet",
    "vae",
    "vgg",
    "vgg_names",
    "vit",
    "vit_names",
    "whisper_encoder",
    "with_head",
]
