"""Weights of other libraries: safetensors files, torch's layers, Hugging Face's models; and tokenizers."""

from dlkit.io.huggingface import from_hugging_face, hugging_face_sources, model_from_config, to_hugging_face
from dlkit.io.load import load, save
from dlkit.io.names import torchvision_resnet
from dlkit.io.report import Report, WeightsError
from dlkit.io.sources import Source, export_tensors, import_tensors
from dlkit.io.tensors import TensorFileError, Tensors, open_tensors, write_tensors
from dlkit.io.torch_layers import Place, from_torch, to_torch, torch_sources

__all__ = [
    "Place",
    "Report",
    "Source",
    "TensorFileError",
    "Tensors",
    "WeightsError",
    "export_tensors",
    "from_hugging_face",
    "from_torch",
    "hugging_face_sources",
    "import_tensors",
    "load",
    "model_from_config",
    "open_tensors",
    "save",
    "to_hugging_face",
    "to_torch",
    "torch_sources",
    "torchvision_resnet",
    "write_tensors",
]
