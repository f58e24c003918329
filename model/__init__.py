"""Floor 1: load a model, address its parts, run it, train a slice of it, edit it."""

from .adapter import is_adapter, read_adapter
from .batch import Batch, chunks, encode, encode_texts, logits, pad, token_logprobs
from .edit import Edit, capture
from .export import export
from .export_adapter import export_adapter
from .factors import Factors, factors
from .gguf import export_gguf
from .layout import Slice, slices
from .load import DEFAULT, Model, load, wrap
from .lora import LowRank, low_rank
from .merge import merge
from .quantize import bare, quantized
from .site import INDEXED, PARTS, Part, Site
from .summary import Summary
from .sweep import Swept, sweep
from .train import Trainable, checkpointed, scratch, sliced, unfrozen

__all__ = [
    "DEFAULT",
    "INDEXED",
    "PARTS",
    "Batch",
    "Edit",
    "Factors",
    "LowRank",
    "Model",
    "Part",
    "Site",
    "Slice",
    "Summary",
    "Swept",
    "Trainable",
    "bare",
    "capture",
    "checkpointed",
    "chunks",
    "encode",
    "encode_texts",
    "export",
    "export_adapter",
    "export_gguf",
    "factors",
    "is_adapter",
    "load",
    "logits",
    "low_rank",
    "merge",
    "pad",
    "quantized",
    "read_adapter",
    "scratch",
    "sliced",
    "slices",
    "sweep",
    "token_logprobs",
    "unfrozen",
    "wrap",
]
