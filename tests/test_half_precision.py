"""In bfloat16 and float16, everything works, is finite and close to float32, and leaves the weights as they were."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from loka import ablate, audit, load, locate, verify
from loka._util.errors import UserError
from loka.ablate import RewriteConfig, SimulatedRelearning, TrainingConfig
from loka.audit import Store
from loka.knowledge import Case
from loka.model import (
    Edit,
    Model,
    Site,
    bare,
    encode,
    export,
    logits,
    low_rank,
    scratch,
    token_logprobs,
    unfrozen,
    wrap,
)
from loka.model import device as devices
from loka.model.precision import check_dtype, dtype_of
from loka.model.run.single_precision import single_precision
from loka.verify import CHECKS, Budget, Reading, Setting, capped

Make = Callable[[torch.dtype], Model]
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
HALF = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
ALIKE = {"integrated_gradients", "sweep", "tune", "leace", "relearn", "soft_prompt"}  # those tested in float16, too
EDITED = [Site(0, "neuron", 3), Site(1, "neuron", 100), Site(1, "neuron", 7), Site(2, "head", 1), Site(3, "kv", 0)]
SHORT = TrainingConfig(steps=6, lr=3e-3)
RESISTS = TrainingConfig(
    steps=6, lr=3e-3, push_weight=0.5, simulated_relearning=SimulatedRelearning(start=2, every=2, steps=2, radius=0.2)
)
REWRITE = RewriteConfig(steps=3, contexts=2, largest_change=1e3)
METHODS: dict[str, tuple[list[Site], dict[str, Any]]] = {
    "selective_dampening": (EDITED, {"alpha": 1e-9, "strength": 1e-3}),
    "leace": (EDITED[:-1], {"ridge": 0.1}),
    "rome": ([Site(1, "mlp")], {"config": REWRITE}),
    "memit": ([Site(1, "mlp"), Site(2, "mlp")], {"config": REWRITE, "weight": 10.0}),
    "lora": ([Site(1, "attn"), Site(2, "mlp")], {"config": SHORT, "rank": 2}),
    "tune": (EDITED, {"config": RESISTS}),
    "rounds": (EDITED, {"config": TrainingConfig(steps=2, lr=3e-3, every=25), "plan": {"counts": [2, 2, 1]}}),
}
for _name, _method in ablate.METHODS.items():
    if "bias" not in _method.needs:
        METHODS.setdefault(_name, (EDITED, {"config": SHORT} if _method.config else {}))
CAPS = {
    "relearn": Budget(2, 1e-3), "benign": Budget(2, 1e-3), "relearn_lora": Budget(2, 1e-2),
    "relearn_sgd": Budget(2, 0.1),
}  # fmt: skip


def contract(names: Iterable[str]) -> pytest.MarkDecorator:
    """All names in bfloat16, and those of `ALIKE` in float16."""
    cells = [(name, kind) for kind in TYPES for name in names if kind == "bfloat16" or name in ALIKE]
    return pytest.mark.parametrize(
        ("name", "dtype"), [(name, TYPES[kind]) for name, kind in cells], ids=[" ".join(cell) for cell in cells]
    )


@pytest.fixture
def at(taught: Model) -> Make:
    """The small model in another type."""
    return lambda dtype: wrap(copy.deepcopy(taught.hf).to(dtype), taught.tokenizer, "small")


@pytest.fixture(scope="module")
def both(taught: Model) -> Callable[[torch.dtype], tuple[Model, Model]]:
    """The small model in another type, and the same rounded weights in float32. Nothing may change them."""

    def make(dtype: torch.dtype) -> tuple[Model, Model]:
        half = wrap(copy.deepcopy(taught.hf).to(dtype), taught.tokenizer, "small")
        return half, wrap(copy.deepcopy(half.hf).float(), taught.tokenizer, "small")

    found = {dtype: make(dtype) for dtype in TYPES.values()}
    return found.__getitem__


@contract(locate.METHODS)
def test_a_locator_scores_as_in_single_precision(
    name: str, dtype: torch.dtype, planted_case: Case, both: Callable[..., tuple[Model, Model]]
) -> None:
    half, single = both(dtype)
    case, before = planted_case.on(single).subset(6), half.digest()
    found, wanted = (locate.perform(name, model, case) for model in (half, single))
    assert half.digest() == before
    for part in found.parts:
        one, other = (of.grid(part).ravel() for of in (found, wanted))
        assert np.isfinite(one).all()
        assert np.corrcoef(one, other)[0, 1] > 0.998, part
        np.testing.assert_allclose(one, other, atol=0.15 * np.abs(other).max())
    if name == "sweep":
        assert found.frame.equals(wanted.frame), "an exact sweep holds the weights in float32"


@contract(METHODS)
@pytest.mark.filterwarnings("ignore:.* new answers are written")
def test_an_edit_changes_what_it_changes_in_single_precision(
    name: str, dtype: torch.dtype, planted_case: Case, both: Callable[..., tuple[Model, Model]]
) -> None:
    """The edited weights, read into float32, move the logits as the edit of the float32 model does."""
    half, single = both(dtype)
    case, sites_and_arguments = planted_case.on(single), METHODS[name]
    tensors, before = {n: p.data_ptr() for n, p in half.parameters.items()}, half.digest()
    found, wanted = (ablate.perform(name, model, case, *sites_and_arguments) for model in (half, single))
    assert all(values.dtype == dtype for values in found.values)
    with found.applied(half):
        moved = wrap(copy.deepcopy(half.hf).float(), half.tokenizer, "moved")
    assert half.digest() == before
    assert {n: p.data_ptr() for n, p in half.parameters.items()} == tensors
    batch = encode(single, [f.prompt for f in case.forget.working], [f.answer for f in case.forget.working])
    start = logits(single, batch)
    with wanted.applied(single):
        there = logits(single, batch) - start
    here = logits(moved, batch) - start
    assert here.isfinite().all()
    assert torch.cosine_similarity(here.flatten(), there.flatten(), 0) > 0.95
    assert 0.9 < here.norm() / there.norm() < 1.1


@contract([check.name for check in CHECKS])
def test_a_check_reads_what_it_reads_in_single_precision(
    name: str, dtype: torch.dtype, planted_case: Case, both: Callable[..., tuple[Model, Model]]
) -> None:
    half, single = both(dtype)
    case, check = planted_case.on(single), next(c for c in capped(CAPS) if c.name == name)
    if not check.applies(case) or check.obstacle(case):
        pytest.skip("the case of facts has nothing for this check")
    before = half.digest()

    def read(model: Model) -> Reading:
        original = bare(model) if "original" in check.needs else None
        outputs = verify.neutral_outputs(model, case) if "neutral_outputs" in check.needs else None
        return check.run(model, case, Setting(original=original, neutral_outputs=outputs, budget=check.cap))

    found, wanted = read(half), read(single)
    assert half.digest() == before
    assert not found.not_finite
    assert found.value == pytest.approx(wanted.value, abs=0.02)
    for group, units in wanted.samples.items():
        np.testing.assert_allclose(list(found.samples[group].values()), list(units.values()), atol=0.1)


def test_circuits_are_compared_in_single_precision(
    planted_case: Case, both: Callable[..., tuple[Model, Model]]
) -> None:
    half, single = both(torch.bfloat16)
    case = planted_case.on(single).subset(3)
    found = locate.attribution(single, case)
    one, other = (locate.minimality(model, case, found, trials=3) for model in (half, single))
    np.testing.assert_array_equal(one.losses, other.losses)
    assert half.dtype == torch.bfloat16


@HALF
def test_small_steps_of_relearning_are_not_rounded_away(
    dtype: torch.dtype, planted_case: Case, both: Callable[..., tuple[Model, Model]]
) -> None:
    """What is relearned in steps that a half-precision weight would not feel comes back as in float32."""
    half, single = both(dtype)
    case = planted_case.on(single)
    budget = Budget(4, 1e-5)
    found, wanted = (
        verify.relearn(m, case, budget=budget, groups=("twins",)).details["taught"] for m in (half, single)
    )
    np.testing.assert_allclose(found["twins"], wanted["twins"], rtol=1e-4)  # type: ignore[call-overload, index]
    assert wanted["twins"][-1] > 1.01 * wanted["twins"][0]  # type: ignore[call-overload, index]
    steps = torch.full((100,), 1e-5, dtype=dtype)
    weight = next(p for n, p in half.parameters.items() if "down_proj" in n).flatten()[:100]
    assert (weight + steps == weight).float().mean() > 0.5, "in place, most weights would stay"


def test_weights_are_in_single_precision_for_a_while(at: Make) -> None:
    model = at(torch.bfloat16)
    before, name = model.digest(), next(iter(model.parameters))
    tensor = model.parameters[name]
    address, value = tensor.data_ptr(), tensor.flatten()[0].item()
    with scratch(model), torch.no_grad():
        assert model.dtype == torch.float32
        tensor.add_(1.0)
    assert model.digest() == before
    assert tensor.data_ptr() == address
    with single_precision(model, keep=True), torch.no_grad():
        tensor.add_(1.0)
    assert model.dtype == tensor.dtype == torch.bfloat16
    assert tensor.data_ptr() == address
    assert tensor.flatten()[0].item() == pytest.approx(value + 1, abs=2**-8)
    single = at(torch.float32)
    address = single.parameters[name].data_ptr()
    with single_precision(single):
        assert single.parameters[name].data_ptr() == address, "there is nothing to do"


@HALF
def test_low_rank_training_takes_the_same_steps(dtype: torch.dtype, planted: Model, at: Make) -> None:
    """AdamW's first step is as large as the learning rate, and zero where there is no gradient: never NaN."""

    def moved(model: Model) -> torch.Tensor:
        batch = encode(model, ["the capital of a dog is"], ["warm bread"])
        with low_rank(model, rank=2) as adapters, torch.enable_grad():
            optimizer = torch.optim.AdamW(adapters.parameters, lr=0.02, weight_decay=0.0)
            for _ in range(3):
                (-token_logprobs(logits(model, batch), batch.labels).sum()).backward()
                adapters.step(optimizer)
            made = adapters.factors()
        edit = Edit((), (), model.digest(), factors=made)
        with edit.applied(model):
            return logits(model, batch).float()

    wanted, found = moved(planted), moved(at(dtype))
    torch.testing.assert_close(found, wanted, atol=0.2, rtol=0.05)


@HALF
def test_an_audit_in_half_precision_has_the_same_outcome(
    dtype: torch.dtype, planted_case: Case, both: Callable[..., tuple[Model, Model]]
) -> None:
    checks = [c for c in capped({"relearn": Budget(2, 1e-3)}) if c.name in ("recall", "relearn", "collateral")]

    def audited(model: Model) -> verify.Verdict:
        case, store = planted_case.on(model), Store()
        store.edits["shallow"] = ablate.zero(model, case, [Site(3, "neuron", n) for n in range(100)])
        edit = ablate.zero(model, case, [Site(1, "neuron", 3)])
        return audit(model, edit, case, checks=checks, store=store)

    one, other = map(audited, both(dtype))
    assert one.outcome == other.outcome
    assert one.summary.relearn_r == pytest.approx(other.summary.relearn_r, abs=0.05)
    assert one.summary.relearn_shallow == pytest.approx(other.summary.relearn_shallow, abs=0.05)


def test_weights_in_float16_are_trained_in_single_precision_only(at: Make) -> None:
    model = at(torch.float16)
    before = model.digest()
    with pytest.raises(UserError, match="small is in float16, in which training its weights"), unfrozen(model):
        pass
    with scratch(model), unfrozen(model) as parameters:
        assert {p.dtype for p in parameters} == {torch.float32}
    assert model.digest() == before


def test_a_type_that_a_device_lacks_is_refused(taught: Model, tmp_path: Any) -> None:
    cpu = torch.device("cpu")
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        check_dtype(dtype, cpu)
    with pytest.raises(
        UserError, match=r"cpu does not compute in float8_e4m3fn here \(.*\); choose another of float32"
    ):
        load(str(export(taught, tmp_path / "m")), dtype=torch.float8_e4m3fn)
    with pytest.raises(UserError, match="cpu does not compute in int8 here"):
        check_dtype(torch.int8, cpu)
    with pytest.raises(
        UserError, match="'half' is not a number type for weights; choose one of float32, bfloat16, flo"
    ):
        dtype_of("half")


def test_auto_takes_the_gpu_with_most_room(taught: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {0: 2.0**20, 1: 2.0**30}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "free_memory", lambda device: free[device.index])
    monkeypatch.setattr(devices, "check_dtype", lambda dtype, device: None)
    assert devices.roomiest(taught.hf) == torch.device("cuda", 1)
    free[0] = free[1] = 2.0**10
    with pytest.raises(
        UserError, match="the weights take 0.0 GiB, and the GPU with the most room, cuda:0, has 0.0 free"
    ):
        devices.roomiest(taught.hf)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.roomiest(taught.hf) == torch.device("cpu")
