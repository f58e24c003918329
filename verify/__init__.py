"""Floor 3: is it removed, or only silent? Checks see a model, never an edit."""

from .collateral import collateral, neutral_memory
from .membership import membership
from .paraphrase import paraphrase
from .privleak import privleak, relative_difference
from .probe import probe
from .reading import Reading, refused
from .recall import by_subject, recall
from .relearn import Budget, at_step, relearn
from .rouge import Rouge, cut, rouge, without_prompt
from .scorecard import Scorecard, scorecard
from .tofu import ForgetQuality, TofuReport, tofu_forget_quality, tofu_model_utility, tofu_report
from .tokens import answer_logprobs, answer_loss, exact_memorization, extraction_strength, probability
from .truth_ratio import Scored, Summary, option_probability, truth_ratio
from .verdict import Gate, Verdict, compare, judge

__all__ = [
    "Budget",
    "ForgetQuality",
    "Gate",
    "Reading",
    "Rouge",
    "Scorecard",
    "Scored",
    "Summary",
    "TofuReport",
    "Verdict",
    "answer_logprobs",
    "answer_loss",
    "at_step",
    "by_subject",
    "collateral",
    "compare",
    "cut",
    "exact_memorization",
    "extraction_strength",
    "judge",
    "membership",
    "neutral_memory",
    "option_probability",
    "paraphrase",
    "privleak",
    "probability",
    "probe",
    "recall",
    "refused",
    "relative_difference",
    "relearn",
    "rouge",
    "scorecard",
    "tofu_forget_quality",
    "tofu_model_utility",
    "tofu_report",
    "truth_ratio",
    "without_prompt",
]
