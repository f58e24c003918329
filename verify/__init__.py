"""Floor 3: is it removed, or only silent? Checks see a model, never an edit."""

from .benchmarks import benchmark, tofu_quality
from .benign import benign
from .check import Check, Effort, Need, Profile, Role, Setting
from .checks import CHECKS, by_role, capped
from .collateral import collateral, neutral_outputs
from .curves import at_common_budget, at_step
from .depth import depth
from .direction_ablation import direction_ablation
from .downstream import downstream
from .extraction import extraction, leak_at
from .judge.evidence import compare
from .judge.gates import Gate
from .judge.power import Equivalence, equivalence, power, subjects_after, subjects_for
from .judge.scorecard import Scorecard, scorecard
from .judge.summary import Summary
from .judge.verdict import Verdict, judge
from .logit_lens import logit_lens
from .mask import mask
from .membership import membership
from .metrics.attacks import (
    attack_auc,
    loss_score,
    lowercase_score,
    min_k_plus_plus_score,
    min_k_score,
    reference_score,
    zlib_score,
)
from .metrics.gradient import grad_norm_score
from .metrics.privleak import privleak, relative_difference
from .metrics.rouge import Rouge, cut, rouge, without_prompt
from .metrics.tofu import ForgetQuality, TofuReport, tofu_forget_quality, tofu_model_utility, tofu_report
from .metrics.tokens import answer_logprobs, answer_loss, exact_memorization, extraction_strength, probability
from .metrics.truth_ratio import Aggregate, BenchmarkScore, option_probability, truth_ratio
from .metrics.unlearning_depth import Depth, Question, mean_depth, unlearning_depth
from .metrics.windows import window_logprobs
from .paraphrase import paraphrase
from .prefill import prefill
from .probe import probe
from .quantize import quantize
from .reading import Reading, make_reading, refusal
from .recall import recall
from .relearn import relearn
from .similarity import similarity
from .soft_prompt import soft_prompt
from .spectral import spectral
from .training import Budget
from .units import recall_by_unit, unit_key

__all__ = [
    "CHECKS",
    "Aggregate",
    "BenchmarkScore",
    "Budget",
    "Check",
    "Depth",
    "Effort",
    "Equivalence",
    "ForgetQuality",
    "Gate",
    "Need",
    "Profile",
    "Question",
    "Reading",
    "Role",
    "Rouge",
    "Scorecard",
    "Setting",
    "Summary",
    "TofuReport",
    "Verdict",
    "answer_logprobs",
    "answer_loss",
    "at_common_budget",
    "at_step",
    "attack_auc",
    "benchmark",
    "benign",
    "by_role",
    "capped",
    "collateral",
    "compare",
    "cut",
    "depth",
    "direction_ablation",
    "downstream",
    "equivalence",
    "exact_memorization",
    "extraction",
    "extraction_strength",
    "grad_norm_score",
    "judge",
    "leak_at",
    "logit_lens",
    "loss_score",
    "lowercase_score",
    "make_reading",
    "mask",
    "mean_depth",
    "membership",
    "min_k_plus_plus_score",
    "min_k_score",
    "neutral_outputs",
    "option_probability",
    "paraphrase",
    "power",
    "prefill",
    "privleak",
    "probability",
    "probe",
    "quantize",
    "recall",
    "recall_by_unit",
    "reference_score",
    "refusal",
    "relative_difference",
    "relearn",
    "rouge",
    "scorecard",
    "similarity",
    "soft_prompt",
    "spectral",
    "subjects_after",
    "subjects_for",
    "tofu_forget_quality",
    "tofu_model_utility",
    "tofu_quality",
    "tofu_report",
    "truth_ratio",
    "unit_key",
    "unlearning_depth",
    "window_logprobs",
    "without_prompt",
    "zlib_score",
]
