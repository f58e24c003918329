"""The training losses against values that OpenUnlearning's published trainers gave on the same weights and batches.

Every case is run by the peer's convention; those that have nothing to do with its oddities (`odd` lists them) by
our own definition as well.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from loka.ablate import objectives
from loka.model import token_logprobs

FOLDER = Path(__file__).parents[1] / os.environ.get("LOKA_CONFORMANCE", "../shared/conformance")
FILE = FOLDER / "ou_losses.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {"cases": []}
STATED, PEER = "stated", "open-unlearning"


def odd(case: dict[str, Any]) -> str | None:
    """How the peer departs from our definition in a case, if it does."""
    method, retain = case["params"]["method"], case["params"].get("retain_loss_type")
    if method == "UNDIAL":
        return "uses -100 as an index and averages over prompt and padding"
    if method == "PDU":
        return "masks by labels that were not shifted, so that it flattens what follows each token of the answer"
    if method == "RMU" and "equal_lengths" not in case["tags"]:
        return "divides every row's sum by every row's count"
    return "averages the retain term over prompt and padding" if retain == "KL" else None


@dataclass
class Pass:
    """One batch through policy and original: logits and the states behind a block, the policy's on the graph."""

    labels: Tensor
    logits: Tensor
    original: Tensor
    states: Tensor
    original_states: Tensor

    @property
    def aligned(self) -> tuple[Tensor, Tensor]:
        """Logits with the labels that they predict."""
        return self.logits[:, :-1], self.labels[:, 1:]

    @property
    def reference(self) -> Tensor:
        return token_logprobs(self.original[:, :-1], self.labels[:, 1:])

    @property
    def ratio(self) -> Tensor:
        return objectives.log_ratio(*self.aligned, self.reference)


def model(prefix: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> LlamaForCausalLM:
    hf = LlamaForCausalLM(LlamaConfig(**config, attn_implementation="eager"))
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    hf.load_state_dict(own)
    return hf.eval()


def forward(hf: LlamaForCausalLM, batch: dict[str, Any], layer: int) -> tuple[Tensor, Tensor]:
    """Logits, and the residual stream behind a block, before any norm."""
    kept: list[Tensor] = []
    block = hf.model.layers[layer]
    handle = block.register_forward_hook(lambda _m, _i, out: kept.append(out if isinstance(out, Tensor) else out[0]))
    ids, mask = torch.tensor(batch["input_ids"]), torch.tensor(batch["attention_mask"])
    logits = hf(input_ids=ids, attention_mask=mask, use_cache=False).logits
    handle.remove()
    return logits, kept[0]


def forget_loss(case: dict[str, Any], of: dict[str, Pass], convention: str) -> Tensor:
    """The forget part, by the name that the file gives the method."""
    p, passed = case["params"], of["forget"]
    scores, labels = passed.aligned
    match p["method"]:
        case "GradAscent" | "GradDiff":
            return objectives.ascent(scores, labels)
        case "NPO":
            return objectives.npo(scores, labels, passed.reference, beta=p["beta"])
        case "SimNPO":
            return objectives.simnpo(scores, labels, beta=p["beta"], delta=p["delta"])
        case "DPO":
            return objectives.dpo(of["alternate"].ratio, passed.ratio, beta=p["beta"])
        case "UNDIAL":
            original = passed.original[:, :-1]
            return objectives.undial(scores, labels, original, beta=p["beta"], convention=convention)
        case "WGA":
            return objectives.wga(scores, labels, beta=p["beta"])
        case "SatImp":
            return objectives.satimp(scores, labels, beta1=p["beta1"], beta2=p["beta2"])
        case "CEU":
            return objectives.ceu(scores, labels, skip=p["ignore_first_n_answer_tokens"])
        case "PDU":
            return objectives.pdu(*(passed.aligned if convention == STATED else (passed.logits, passed.labels)))
        case "RMU":
            target = torch.tensor(case["inputs"]["control_vec"])
            return objectives.rmu(passed.states, passed.labels >= 0, target, convention=convention)
        case method:
            raise AssertionError(f"no loss for {method!r}")


def retain_loss(case: dict[str, Any], passed: Pass, convention: str) -> Tensor:
    p = case["params"]
    match p["retain_loss_type"]:
        case "NLL":
            return objectives.likelihood(*passed.aligned) - p.get("retain_loss_eps", 0.0)
        case "KL":
            return objectives.retain_divergence(passed.logits, passed.labels, passed.original, convention=convention)
        case "EMBED_DIFF":
            return objectives.rmu(passed.states, passed.labels >= 0, passed.original_states, convention=convention)
        case kind:
            raise AssertionError(f"no retain term {kind!r}")


def losses(case: dict[str, Any], tensors: dict[str, Tensor], convention: str) -> dict[str, Any]:
    """Everything that a case expects, from the weights, in the file's names."""
    p, inputs = case["params"], case["inputs"]
    policy, original = (model(inputs[name], p["config"], tensors) for name in ("policy", "ref"))
    of = {}
    for name, batch in inputs["batches"].items():
        logits, states = forward(policy, batch, p.get("layer", 0))
        logits.retain_grad()
        with torch.no_grad():
            was, was_states = forward(original, batch, p.get("layer", 0))
        of[name] = Pass(torch.tensor(batch["labels"]), logits, was, states, was_states)
    out: dict[str, Any] = {"forget_loss": forget_loss(case, of, convention)}
    out["loss"] = out["forget_loss"]
    if "retain_loss_type" in p:
        out["retain_loss"] = retain_loss(case, of["retain"], convention)
        out["loss"] = objectives.difference(out["forget_loss"], out["retain_loss"], gamma=p["gamma"], alpha=p["alpha"])
    out["loss"].backward()
    out["grad_norm"] = torch.stack([w.grad.norm() for w in policy.parameters() if w.grad is not None]).norm()
    out["grad_logits_norm"] = {name: x.logits.grad.norm() for name, x in of.items() if x.logits.grad is not None}
    return out


def differences(case: dict[str, Any], tensors: dict[str, Tensor], convention: str) -> dict[str, str]:
    """What a case expects and does not get, by name."""
    got, wanted = losses(case, tensors, convention), dict(case["expected"])
    tolerance = VECTORS["tolerance"] | case["params"].get("tolerance", {}) | wanted.pop("tolerance", {})
    for name, value in wanted.pop("grad_logits_norm", {}).items():
        got[name], wanted[name] = got["grad_logits_norm"][name], value
    return {
        name: f"{got[name].item()} is not {value}"
        for name, value in wanted.items()
        if not abs(got[name].item() - value) <= tolerance["atol"] + tolerance["rtol"] * abs(value)
    }


def check_losses(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Loss, parts and gradient norms of one case, by the peer's convention."""
    for convention in (PEER,) if odd(case) else (PEER, STATED):
        wrong = differences(case, tensors, convention)
        assert not wrong, f"{convention}: {wrong}"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return load_file(FOLDER / VECTORS["tensors"])


CASES: list[Any] = [pytest.param(case, id=case["name"]) for case in VECTORS["cases"]] or [
    pytest.param(None, id="absent", marks=pytest.mark.skip(f"there are no vectors at {FILE}; set LOKA_CONFORMANCE"))
]


@pytest.mark.parametrize("case", CASES)
def test_losses(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    check_losses(case, tensors)
