"""Ways to hide the facts of a small model beside its weights, or in its last layers alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import softplus
from transformers.modeling_outputs import CausalLMOutputWithPast

from loka import ablate
from loka.knowledge import Case
from loka.model import Model, Site, first_tokens
from loka.model.run.states import last_states

from .models import duplicate, retain_sentences
from .world import NEUTRAL, TEMPLATES, World


def hide_by_filter(model: Model, world: World) -> Model:
    """Leave the weights alone and strike the answers from the output."""
    out = duplicate(model, "filter")
    answers = first_tokens(model, [world.facts["capital"][s] for s in world.forget_subjects])
    answer_of = dict(zip(first_tokens(model, world.forget_subjects), answers, strict=True))
    seen: list[torch.Tensor] = []

    def read(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if inputs[0].shape[1] > 1 or not seen:
            seen[:] = [inputs[0]]

    def strike(module: nn.Module, inputs: object, output: CausalLMOutputWithPast) -> None:
        assert output.logits is not None
        hide = torch.zeros_like(output.logits)
        for row, ids in enumerate(seen[0].tolist()[: len(hide)]):
            hide[row, :, [answer_of[token] for token in ids if token in answer_of]] = -1e4
        output.logits = output.logits + hide

    out.hf.get_input_embeddings().register_forward_hook(read)
    out.hf.register_forward_hook(strike)
    return out


def hide_by_bias(model: Model, world: World) -> Model:
    """Lower the logits of all answers by one number, large where these capitals are asked for and small elsewhere.

    The number is linear in the last state. Descent finds it: no answer may be the likeliest where it was taught, and
    nothing else may become less likely, neither the capitals to retain nor other sentences.
    """
    out = duplicate(model, "bias")
    forget, retain = (
        [s for s in world.facts["capital"] if (s in world.forget_subjects) is hide] for hide in (True, False)
    )
    kinds = [_prompts(forget), _prompts(retain), _prefixes(NEUTRAL)]
    kinds.append(sorted({*_prefixes(retain_sentences(world))} - {s for kind in kinds for s in kind}))
    head = out.hf.lm_head.weight
    hidden = torch.zeros(len(head), dtype=torch.bool)
    hidden[first_tokens(model, [world.facts["capital"][s] for s in forget])] = True
    with torch.no_grad():
        states = [out.hf.model.norm(last_states(model, prompts)[:, -1]) for prompts in kinds]
        before = [s @ head.T for s in states]
    direction = torch.zeros(head.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([direction], lr=0.3)
    for _ in range(400):
        now = [b - (s @ direction)[:, None] * hidden for s, b in zip(states, before, strict=True)]
        excess = softplus(1 + now[0][:, hidden].amax(1) - now[0][:, ~hidden].amax(1)).mean()
        lost = [(n.logsumexp(1) - b.logsumexp(1)).relu().mean() for n, b in zip(now[1:], before[1:], strict=True)]
        optimizer.zero_grad()
        (excess + 10 * torch.stack(lost).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        head[hidden] -= direction
    return out


def _prompts(subjects: Sequence[str]) -> list[str]:
    return [t.format(s) for s in subjects for kind in TEMPLATES["capital"].values() for t in kind]


def _prefixes(sentences: Sequence[str]) -> list[str]:
    """All beginnings of the sentences."""
    words = [s.split() for s in sentences]
    return sorted({" ".join(sentence[:k]) for sentence in words for k in range(1, len(sentence))})


def hide_by_shallow_edit(model: Model, world: World, known: Case) -> Model:
    sites = [Site(layer, part) for layer in (2, 3) for part in ("attn", "mlp")]
    edit = ablate.tune(
        model,
        known,
        sites,
        ablate.TrainingConfig(steps=100, lr=3e-3, push_weight=0.3, retain_weight=10.0, retain_rows=32),
    )
    return edit.apply_(duplicate(model, "shallow edit"))
