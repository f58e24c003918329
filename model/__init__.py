"""Floor 1: load a model, address its parts, run it, train a slice of it, edit it."""

from .batch import Batch, chunks, encode, encode_texts, logits, pad, token_logprobs
from .edit.edit import Edit, capture
from .edit.factors import Factors, factors
from .edit.merge import merge
from .edit.record import EditRecord, RewriteRecord, RoundRecord, TrainingRecord
from .edit.summary import EditSummary
from .io.export import export
from .io.gguf import export_gguf
from .io.peft_read import is_adapter, read_adapter
from .io.peft_write import export_adapter
from .io.quantize import bare, quantized
from .layout import Slice, slices
from .load import DEFAULT, Model, load, wrap
from .prompt import Prompt, join
from .run.interventions import Intervention
from .run.sweep import SweepBudget, Swept, sweep
from .site import INDEXED, PARTS, Part, Site
from .tokens import chat, first_tokens, split, token_ids
from .train.lora import LowRank, low_rank
from .train.train import Trainable, check_trainable, checkpointed, scratch, sliced, unfrozen
from .work import Runner, Task, Work, in_turn

__all__ = [
    "DEFAULT",
    "INDEXED",
    "PARTS",
    "Batch",
    "Edit",
    "EditRecord",
    "EditSummary",
    "Factors",
    "Intervention",
    "LowRank",
    "Model",
    "Part",
    "Prompt",
    "RewriteRecord",
    "RoundRecord",
    "Runner",
    "Site",
    "Slice",
    "SweepBudget",
    "Swept",
    "Task",
    "Trainable",
    "TrainingRecord",
    "Work",
    "bare",
    "capture",
    "chat",
    "check_trainable",
    "checkpointed",
    "chunks",
    "encode",
    "encode_texts",
    "export",
    "export_adapter",
    "export_gguf",
    "factors",
    "first_tokens",
    "in_turn",
    "is_adapter",
    "join",
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
    "split",
    "sweep",
    "token_ids",
    "token_logprobs",
    "unfrozen",
    "wrap",
]
