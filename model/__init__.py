"""Floor 1: load a model, address its parts, run it, train a slice of it, edit it."""

from .batch import Batch, chunks, encode, encode_texts, logits, pad, token_logprobs
from .edit import Edit, capture
from .export import export
from .factors import Factors, factors
from .layout import Slice, slices
from .load import DEFAULT, Model, load, wrap
from .site import PARTS, Part, Site
from .train import Trainable, scratch, sliced, unfrozen

__all__ = [
    "DEFAULT",
    "PARTS",
    "Batch",
    "Edit",
    "Factors",
    "Model",
    "Part",
    "Site",
    "Slice",
    "Trainable",
    "capture",
    "chunks",
    "encode",
    "encode_texts",
    "export",
    "factors",
    "load",
    "logits",
    "pad",
    "scratch",
    "sliced",
    "slices",
    "token_logprobs",
    "unfrozen",
    "wrap",
]
