"""The preconditioner: its roots whiten a map's inputs, and its steps hardly move the outputs for other inputs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from loka.ablate.training.preconditioner import precondition_, roots
from loka.knowledge import Case, neutral_working
from loka.model import Model, Site, Slice, sliced, slices

DAMPING = 0.01


def _read(model: Model, where: Slice, texts: list[str]) -> Tensor:
    """The inputs of the slice's map, over texts one by one, `[token, d_in]`."""
    read: list[Tensor] = []
    module = model.hf.get_submodule(where.name.rsplit(".", 1)[0])
    handle = module.register_forward_hook(lambda _, inputs, __: read.append(inputs[0][0]))
    with torch.no_grad():
        for text in texts:
            model.hf(input_ids=torch.tensor([model.tokenizer(text)["input_ids"]], device=model.device))
    handle.remove()
    return torch.cat(read).double()


def _retained(case: Case) -> list[str]:
    facts = (*case.retain.working, *case.unknown)
    return [p for f in facts if f.relation in case.forgotten_relations for p in f.prompts]


@pytest.fixture
def known(planted: Model, planted_case: Case) -> Case:
    return planted_case.on(planted)


def test_the_root_makes_what_is_read_white(planted: Model, known: Case) -> None:
    where = slices(planted, [Site(1, "neuron", 3), Site(2, "head", 1)])
    found = roots(planted, known, where, DAMPING)
    rows = [(w, root) for w, root in zip(where, found, strict=True) if root is not None]
    assert [w.name.rsplit(".", 2)[1] for w, _ in rows] == ["gate_proj", "up_proj", "q_proj"]
    for w, root in rows:
        halves = [_read(planted, w, texts) for texts in (neutral_working(planted, known), _retained(known))]
        moment = sum(x.t() @ x / x.square().sum() for x in halves) * len(root) / 2
        white = root.double() @ (moment + DAMPING * torch.eye(len(root))) @ root.double()
        torch.testing.assert_close(white / white.diagonal().mean(), torch.eye(len(root)).double(), atol=1e-3, rtol=0)
        assert root.double().square().sum() == pytest.approx(len(root), rel=1e-4)


def test_steps_are_of_the_closed_form(architecture: str, tiny: Callable[[str], Model]) -> None:
    """With plain gradient descent a step is the gradient times the root twice; other slices are unchanged."""
    model = tiny(architecture)
    where = slices(model, [Site(0, "neuron", 3), Site(0, "neuron", 5), Site(1, "attn")])
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(model.device)

    with sliced(model, where) as trainable:
        every = []
        for w, p in zip(where, trainable.parameters, strict=True):
            shape = model.parameters[w.name].shape
            transposed = "Conv1D" in type(model.hf.get_submodule(w.name.rsplit(".", 1)[0])).__name__
            d_in = shape[0 if transposed else 1] if len(shape) == 2 and w.dim == int(transposed) else 0
            half = draw(d_in, d_in)
            every.append((half + half.t()).float() if d_in else None)
            p.grad = draw(*p.shape)
        assert any(root is None for root in every)
        before = [(p.detach().clone(), p.grad) for p in trainable.parameters]
        optimizer = torch.optim.SGD(trainable.parameters, lr=0.5)
        precondition_(optimizer, trainable, every)
        trainable.step(optimizer)
        for p, (old, gradient), root, w in zip(trainable.parameters, before, every, where, strict=True):
            if root is not None:
                twice = root.double() @ root.double()
                gradient = twice @ gradient if w.dim else gradient @ twice
            torch.testing.assert_close(p.detach(), old - 0.5 * gradient)


def test_of_all_steps_it_moves_least_what_is_read_beside(planted: Model, known: Case) -> None:
    """Among steps that lower the loss as much, to first order: the plain step and random steps nearby move more."""
    (where, *_) = slices(planted, [Site(1, "neuron", i) for i in range(20)])
    texts = [*neutral_working(planted, known), *_retained(known)]
    read = _read(planted, where, texts)
    generator = torch.Generator().manual_seed(0)
    with sliced(planted, [where]) as trainable:
        (p,) = trainable.parameters
        gradient = torch.randn(p.shape, generator=generator).to(p)
        before, p.grad = p.detach().clone(), gradient.clone()
        optimizer = torch.optim.SGD(trainable.parameters, lr=1.0)
        precondition_(optimizer, trainable, roots(planted, known, [where], 1e-4))
        optimizer.step()
        step = (p.detach() - before).double()
        p.grad = None

    def moved(change: Tensor) -> float:
        return float((read @ (change / (change * gradient).sum()).t()).square().mean())

    assert moved(step) < 0.1 * moved(-gradient.double())
    for _ in range(20):
        other = step + 0.1 * step.norm() / gradient.norm() * torch.randn(p.shape, generator=generator).to(step)
        assert moved(step) < moved(other)
