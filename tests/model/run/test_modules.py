"""A module's input, output and forward function change inside the context alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from loka.model.run.modules import hook_output, replace_input, replace_output, replaced_forward


class Block(nn.Module):
    """Adds one to its first input, and passes the second on."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, y


X = torch.tensor([1.0, 2.0])
Context = Callable[[nn.Module, Callable[[Tensor], Tensor | None]], object]


@pytest.mark.parametrize(("context", "wanted"), [(replace_output, 10 * (X + 1)), (replace_input, 10 * X + 1)])
def test_a_new_tensor_takes_the_place_of_the_first_one(context: Context, wanted: Tensor) -> None:
    block = Block()
    with context(block, lambda x: 10 * x):  # type: ignore[attr-defined]
        out, other = block(X, -X)
    assert torch.equal(out, wanted)
    assert torch.equal(other, -X)


@pytest.mark.parametrize("context", [replace_output, replace_input])
def test_none_leaves_what_is_there(context: Context) -> None:
    block, seen = Block(), []
    with context(block, seen.append):  # type: ignore[attr-defined]
        out, _ = block(X, -X)
    assert torch.equal(out, X + 1)
    assert len(seen) == 1


def test_a_hook_on_the_output_has_the_inputs_too() -> None:
    block, linear = Block(), nn.Linear(2, 2)
    with hook_output(block, lambda inputs, out: out + inputs[1]), hook_output(linear, lambda inputs, _: inputs[0]):
        assert torch.equal(block(X, -X)[0], torch.ones(2))
        assert torch.equal(linear(X), X)


def test_forward_functions_nest_and_are_restored_after_an_error() -> None:
    block = Block()
    with (
        pytest.raises(RuntimeError),
        replace_output(block, lambda x: x),
        replace_input(block, lambda x: x),
        replaced_forward(block, lambda x, _: (x + 2,)),
    ):
        with replaced_forward(block, lambda x, _: (x + 3,)):
            assert torch.equal(block(X, X)[0], X + 3)
        assert torch.equal(block(X, X)[0], X + 2)
        raise RuntimeError
    assert "forward" not in vars(block)
    assert not block._forward_hooks
    assert not block._forward_pre_hooks
    assert torch.equal(block(X, X)[0], X + 1)
