"""Floor 1: load a model, address its parts, run it, train a slice of it, edit it."""

from .batch import Batch, chunks, encode, encode_texts, logits, pad, token_logprobs
from .edit import Edit, capture
from .export import export
from .layout import Slice, slices
from .load import DEFAULT, Model, load, wrap
from .quantize import bare, quantized
from .site import PARTS, Part, Site
from .train import Trainable, scratch, sliced, unfrozen

__all__ = [
    "DEFAULT",
    "PARTS",
    "Batch",
    "Edit",
    "Model",
    "Part",
    "Site",
    "Slice",
    "Trainable",
    "bare",
    "capture",
    "chunks",
    "encode",
    "encode_texts",
    "export",
    "load",
    "logits",
    "pad",
    "quantized",
    "scratch",
    "sliced",
    "slices",
    "token_logprobs",
    "unfrozen",
    "wrap",
]
