"""The digest is the model: all that numbers depend on, and nothing else."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loka.model import Model, export, load, wrap
from loka.model.digest import checksum, checksum_of


@pytest.fixture
def model(tiny: Callable[[str], Model]) -> Model:
    made = tiny("LlamaForCausalLM")
    return wrap(made.hf, copy.deepcopy(made.tokenizer))


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return export(model, tmp_path / "model")


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def swap_two_words(content: dict[str, Any]) -> None:
    words = content["model"]["vocab"]
    words["dog"], words["garden"] = words["garden"], words["dog"]


OTHER: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "the norm's epsilon": ("config.json", lambda c: c.update(rms_norm_eps=1e-3)),
    "rotary angles": ("config.json", lambda c: c["rope_parameters"].update(rope_theta=500.0)),
    "two entries of the vocabulary": ("tokenizer.json", swap_two_words),
    "the chat template": ("tokenizer_config.json", lambda c: c.update(chat_template="{{ messages[0].content }}")),
}  # fmt: skip
SAME: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a version": ("config.json", lambda c: c.update(transformers_version="4.0.0")),
    "the cache": ("config.json", lambda c: c.update(use_cache=False)),
    "names of classes": ("config.json", lambda c: c.update(id2label={"0": "a"})),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER)
def test_it_changes_with_what_numbers_depend_on(what: str, folder: Path) -> None:
    before = load(str(folder), dtype=torch.float64).digest()
    name, edit = OTHER[what]
    change(folder / name, edit)
    assert load(str(folder), dtype=torch.float64).digest() != before


@pytest.mark.parametrize("what", SAME)
def test_it_stays_with_all_else(what: str, folder: Path, model: Model) -> None:
    name, edit = SAME[what]
    change(folder / name, edit)
    assert load(str(folder), dtype=torch.float64).digest() == model.digest()


def in_place(weight: torch.Tensor) -> None:
    weight.data[3, 5] += 1e-9


def by_numpy(weight: torch.Tensor) -> None:
    weight.detach().numpy()[0, 0] += 1e-9


def columns(weight: torch.Tensor) -> None:
    weight.data[:] = weight.data[:, torch.arange(weight.shape[1]).roll(1)]


def rows(weight: torch.Tensor) -> None:
    weight.data[:] = weight.data[torch.arange(weight.shape[0]).roll(1)]


@pytest.mark.parametrize("write", [in_place, by_numpy, columns, rows])
def test_writes_that_torch_does_not_count_are_noticed(write: Callable[[torch.Tensor], None], model: Model) -> None:
    before = model.digest()
    weight = next(p for p in model.parameters.values() if p.ndim == 2)
    version, held = weight._version, weight.detach().clone()
    write(weight)
    assert weight._version == version
    assert model.digest() != before
    weight.data.copy_(held)
    assert model.digest() == before


def test_another_precision_is_another_model(model: Model) -> None:
    before = model.digest()
    model.hf.half()
    assert model.digest() != before


def test_a_large_matrix_is_summed_by_rows_and_columns() -> None:
    """Whole rows of a checksum's table, and what is left over."""
    hf = torch.nn.Linear(1024, 7)

    def now() -> int:
        return checksum_of(hf.named_parameters())

    start = now()
    for parameter in hf.parameters():
        flat = parameter.data.view(-1)
        for at in (0, len(flat) // 2, len(flat) - 1):
            held = flat[at].clone()
            flat[at] = held + 1e-3
            assert now() != start
            flat[at] = held
    assert now() == start


def test_the_cheap_check_is_the_same_for_the_same_model(model: Model) -> None:
    twin = wrap(copy.deepcopy(model.hf), copy.deepcopy(model.tokenizer))
    assert checksum(model.hf, model.tokenizer) == checksum(twin.hf, twin.tokenizer)
    twin.tokenizer.add_tokens(["another"])
    assert checksum(model.hf, model.tokenizer) != checksum(twin.hf, twin.tokenizer)
