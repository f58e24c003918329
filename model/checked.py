"""What must hold of a model before anything is read from it: checked when it is loaded, whatever its make.

- Every weight is a finite number.
- No token sees a later one.
- The two output maps write all that a block adds to its stream: when both are silent, the block passes on its input.
- Each head and each neuron answers to its own features alone: when some are turned round, those change and no others.

Cost: one forward pass over two rows of six tokens, and a few through the first block of each kind.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .._util.errors import UserError, first_line
from .anatomy import Anatomy, dissect
from .run.modules import hook_output, replace_input, replace_output

_TOKENS = 6
_SAME = 1e-5  # of the largest value


def check_weights(hf: PreTrainedModel, name: str) -> None:
    """Raise `UserError` if a weight is not a finite number. Cost: one pass over the weights in memory."""
    for key, tensor in hf.named_parameters():
        if not bool(torch.isfinite(tensor.detach().sum())) and not bool(torch.isfinite(tensor.detach()).all()):
            wrong = int((~torch.isfinite(tensor.detach())).sum())
            raise UserError(
                f"{name}: {key} has {wrong} numbers that are not finite, so nothing that the model says means "
                "anything; fetch or make the weights again."
            )


@torch.no_grad()
def check_causal(hf: PreTrainedModel, name: str) -> None:
    """Raise `UserError` if a token changes what the model says before it, as in an encoder.

    So does a model that cannot run, or whose logits are not finite.
    """
    ids = probe_ids(hf).repeat(2, 1)
    ids[1, -1] = ids[1, 0]
    try:
        logits = hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    except Exception as error:  # whatever a model of any make trips over
        raise UserError(
            f"{name} cannot run {_TOKENS} tokens in {_dtype(hf)} ({first_line(error)}); try dtype=torch.float32, or "
            "give another model."
        ) from error
    if not bool(torch.isfinite(logits).all()):
        raise UserError(f"{name} gives logits that are not finite in {_dtype(hf)}; load it with dtype=torch.float32.")
    first, second = logits[:, :-1]
    if _far(first - second, first) > 100 * _same(hf):
        raise UserError(
            f"{name} is an encoder: a later token changes what it says of earlier ones; give a causal language model."
        )


@torch.no_grad()
def examine(hf: PreTrainedModel, blocks: Sequence[nn.Module], n_heads: int, name: str) -> Anatomy:
    """The anatomy of a model's blocks, found by name and confirmed by what its parts do.

    Raises:
        UserError: a block of another make than LOKA can address, with what differs.
    """
    kinds: dict[str, nn.Module] = {}
    for block in blocks:
        kinds.setdefault(_signature(block), block)
    found = [_confirmed(hf, block, dissect(block, n_heads, name), name) for block in kinds.values()]
    if any(other != found[0] for other in found):
        raise UserError(
            f"{name} has blocks of {len(found)} makes, which differ in their maps or sizes; "
            "LOKA addresses models whose blocks are alike."
        )
    return found[0]


def _confirmed(hf: PreTrainedModel, block: nn.Module, anatomy: Anatomy, name: str) -> Anatomy:
    _check_silent(hf, block, anatomy, name)
    if anatomy.reads and not _neurons_alone(hf, block, anatomy):
        raise _unlike(name, f"a neuron of {anatomy.mlp} answers to features that are not its own")
    for candidate in anatomy.orders():
        if all(_heads_alone(hf, block, candidate, kind) for kind in "qkv") and _queries_look_back(hf, block, candidate):
            return candidate
    raise _unlike(name, f"a head of {anatomy.attention} answers to features that are not its own")


def _check_silent(hf: PreTrainedModel, block: nn.Module, anatomy: Anatomy, name: str) -> None:
    """With both output maps silent, a block passes its input on."""
    states: list[Tensor] = []

    def keep_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append((args[0] if args else kwargs["hidden_states"]).detach())

    def keep_output(_: tuple[Any, ...], output: Tensor) -> None:
        states.append(output.detach())
        raise _Complete

    with ExitStack() as stack:
        for path in (anatomy.out, anatomy.down or anatomy.mlp):
            stack.enter_context(replace_output(block.get_submodule(path), torch.zeros_like))
        stack.callback(block.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
        stack.enter_context(hook_output(block, keep_output))
        _run(hf)
    before, after = states
    if after.shape != before.shape or _far(after - before, before) > 100 * _same(hf):
        maps = f"{anatomy.out} and {anatomy.mlp}"
        raise _unlike(name, f"{maps} are not all that its blocks add to their input, or a norm follows the sum")


def _neurons_alone(hf: PreTrainedModel, block: nn.Module, anatomy: Anatomy) -> bool:
    """Whether the neurons that change when some turn their reading features round are these."""
    n, some = anatomy.n_neurons, _some(anatomy.n_neurons)
    index = torch.cat([some, some + n]) if anatomy.fused_reads else some
    turned = dict.fromkeys(anatomy.reads, index)
    base, new = (_input(hf, block, anatomy.down, anatomy.reads, change) for change in ({}, turned))
    return _are(_changed(base.flatten(0, -2).t(), new.flatten(0, -2).t(), hf), set(some.tolist()))


def _heads_alone(hf: PreTrainedModel, block: nn.Module, anatomy: Anatomy, kind: str) -> bool:
    """Whether the heads that change when some turn their queries, keys or values round are these."""
    features = anatomy.features(kind)
    some = _some(len(features))
    base, new = (_heads(hf, block, anatomy, change) for change in ({}, {_map(anatomy, kind): features[some].flatten()}))
    size = anatomy.n_heads // len(features)
    wanted = {head for head in range(anatomy.n_heads) if head // size in set(some.tolist())}
    return _are(_changed(base.flatten(1), new.flatten(1), hf), wanted)


def _queries_look_back(hf: PreTrainedModel, block: nn.Module, anatomy: Anatomy) -> bool:
    """Whether earlier queries leave the last position as it is, which earlier keys do not, and values act linearly."""
    base = _heads(hf, block, anatomy, {})
    q, k = ({_map(anatomy, kind): anatomy.features(kind).flatten()} for kind in "qk")
    asked, held = (_heads(hf, block, anatomy, change, early=True) for change in (q, k))
    values = _heads(hf, block, anatomy, {_map(anatomy, "v"): anatomy.features("v").flatten()})
    return (
        not _changed(base[:, -1], asked[:, -1], hf)
        and len(_changed(base[:, -1], held[:, -1], hf)) > anatomy.n_heads / 2
        and _far(values + base, base) <= 1000 * _same(hf)
    )


def _map(anatomy: Anatomy, kind: str) -> str:
    return anatomy.qkv["qkv".index(kind)]


def _heads(
    hf: PreTrainedModel, block: nn.Module, anatomy: Anatomy, turned: Mapping[str, Tensor], *, early: bool = False
) -> Tensor:
    """The heads' outputs, `[head, position, d_head]`."""
    found = _input(hf, block, anatomy.out, tuple(dict.fromkeys(anatomy.qkv)), turned, early=early)
    return found.reshape(_TOKENS, anatomy.n_heads, anatomy.d_head).transpose(0, 1)


def _input(
    hf: PreTrainedModel,
    block: nn.Module,
    reader: str,
    maps: Sequence[str],
    turned: Mapping[str, Tensor],
    *,
    early: bool = False,
) -> Tensor:
    """What a map reads when other maps return noise, with the sign of some of their features turned round.

    `turned`: the features by map. `early`: turn them round at all positions but the last.
    """
    seen: list[Tensor] = []

    def keep(value: Tensor) -> None:
        seen.append(value.detach().float() if value.dtype.itemsize < 4 else value.detach())
        raise _Complete

    def noise(path: str, value: Tensor) -> Tensor:
        out = _noise(value, path)
        positions = slice(0, _TOKENS - 1) if early else slice(None)
        if path in turned:
            sign = torch.ones_like(out).view(_TOKENS, -1)
            sign[positions, turned[path].to(out.device)] = -1
            out = out * sign.view_as(out)
        return out

    with ExitStack() as stack:
        for path in maps:
            stack.enter_context(replace_output(block.get_submodule(path), partial(noise, path)))
        stack.enter_context(replace_input(block.get_submodule(reader), keep))
        _run(hf)
    return seen[0]


def _noise(like: Tensor, seed: str) -> Tensor:
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(60))
    return torch.randn(like.shape, generator=generator).to(like)


def _run(hf: PreTrainedModel) -> None:
    """Run six tokens, up to where a hook says that it has seen enough."""
    ids = probe_ids(hf)
    with torch.no_grad(), suppress(_Complete):
        hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def probe_ids(hf: PreTrainedModel) -> Tensor:
    """The six tokens that models are checked on, `[1, position]`."""
    vocabulary = hf.get_input_embeddings().get_parameter("weight").shape[0]
    return torch.tensor([[(3 + 7 * i) % vocabulary for i in range(_TOKENS)]], device=hf.device)


def _some(n: int) -> Tensor:
    """About half of the units: some, not all, unless there is one."""
    chosen = sorted(random.Random(n).sample(range(n), max(1, n // 2)))
    return torch.tensor(chosen)


def _changed(before: Tensor, after: Tensor, hf: PreTrainedModel) -> set[int]:
    """The rows that changed by more than rounding does."""
    far = (after - before).abs().flatten(1).amax(1) / before.abs().max().clamp(min=1e-30)
    return set((far > _same(hf)).nonzero().flatten().tolist())


def _are(changed: set[int], wanted: set[int]) -> bool:
    """Whether none but these changed, and most of these did: one may have nothing to show, as a silent neuron has."""
    return changed <= wanted and len(changed) > len(wanted) / 2


def _dtype(hf: PreTrainedModel) -> str:
    return str(hf.dtype).removeprefix("torch.")


def _far(difference: Tensor, of: Tensor) -> float:
    return float(difference.abs().max() / of.abs().max().clamp(min=1e-30))


def _same(hf: PreTrainedModel) -> float:
    return _SAME if hf.dtype.itemsize >= 4 else 5e-3


def _signature(block: nn.Module) -> str:
    """The make of a block: the classes of its modules and the shapes of its weights."""
    modules = [(name, type(module).__name__) for name, module in block.named_modules()]
    return str([modules, [(name, tuple(p.shape)) for name, p in block.named_parameters()]])


def _unlike(name: str, what: str) -> UserError:
    return UserError(
        f"{name} is of a make that LOKA does not know: {what}. Give a decoder such as those of docs/architecture.md."
    )


class _Complete(Exception):
    """Signals that enough of the model has run."""
