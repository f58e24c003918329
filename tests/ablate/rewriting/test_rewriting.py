"""ROME and MEMIT on real modules: the constraint holds on every architecture, and planted facts get new answers."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from loka import ablate
from loka._util.errors import LokaError, UserError
from loka.ablate import METHODS, RewriteConfig
from loka.ablate.rewriting.outcome import rewrite_record
from loka.ablate.rewriting.rewriting import changes, moments_of
from loka.ablate.rewriting.value import ValueSearch, best_value
from loka.knowledge import Case, Fact, Item, score
from loka.model import Edit, Model, Site, wrap
from loka.model.layout import neuron_output
from loka.model.run.lookup import outputs_at

Make = Callable[[str], Model]
pytestmark = pytest.mark.filterwarnings("ignore:.* new answers are written")
NORMED = {  # or scaled
    "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Olmo2ForCausalLM", "Glm4ForCausalLM", "GraniteForCausalLM",
}  # fmt: skip
MEMIT = METHODS["memit"].config


@pytest.fixture
def few(planted_case: Case) -> Case:
    """The planted case as if known, for models with random weights, and two of its facts with their new answers."""
    return planted_case.whole()


def new_answers(case: Case, n: int) -> dict[str, str]:
    return {f.subject: f.foils[0] for f in case.forget.working[:n]}


def said(model: Model, facts: Sequence[Item], answers: dict[str, str]) -> Tensor:
    return score(model, [f.prompt for f in facts], [answers[f.subject] for f in facts]).logprob


@pytest.fixture
def model(architecture: str, tiny: Make) -> Model:
    return tiny(architecture)


def test_rome_writes_the_value_where_the_subject_ends(model: Model, few: Case) -> None:
    answers, fact = new_answers(few, 1), few.forget.working[0]
    before = said(model, [fact], answers)
    (change,) = changes(model, few, answers, 0)
    question, down = change.rewrite(model), neuron_output(model, 1)
    wanted = best_value(model, down, question, ValueSearch(steps=25)).final
    edit = ablate.rome(model, few, [Site(1, "mlp")], RewriteConfig(contexts=0), answers=answers)
    assert (edit.slices, [min(f.left.shape) for f in edit.factors]) == ((), [1])
    with edit.applied(model):
        (written,) = outputs_at(model, [down], question.batch, question.at)
        assert torch.allclose(written[0], wanted, atol=1e-9)
        assert said(model, [fact], answers) > before


def test_a_search_ends_where_the_answer_is_sure_enough(tiny: Make, few: Case) -> None:
    model = tiny("LlamaForCausalLM")
    (change,) = changes(model, few, new_answers(few, 1), 2)
    question, down = change.rewrite(model), neuron_output(model, 1)
    whole = best_value(model, down, question, ValueSearch(steps=12, target_loss=0.0)).losses
    assert len(whole) == 12
    target = (whole[0] + min(whole)) / 2
    short = best_value(model, down, question, ValueSearch(steps=12, target_loss=target)).losses
    assert short == whole[: len(short)]
    assert short[-1] < target <= min(short[:-1])


def test_memit_moves_the_states_to_where_they_shall_be(architecture: str, model: Model, few: Case) -> None:
    answers, sites = new_answers(few, 3), [Site(0, "mlp"), Site(1, "mlp")]
    if architecture in NORMED:
        with pytest.raises(UserError, match=r"normalises the MLP.s output .* or scales it.* use rome"):
            ablate.memit(model, few, sites, replace(MEMIT, contexts=0), answers=answers)
        return
    facts, block = few.forget.working[:3], model.hf.get_submodule(model.block(1))
    questions = [c.rewrite(model) for c in changes(model, few, answers, 0)]
    wanted = torch.stack([best_value(model, block, q, ValueSearch(steps=6, clamp=0.75)).final for q in questions])
    scores = said(model, facts, answers)
    edit = ablate.memit(model, few, sites, replace(MEMIT, contexts=0, steps=6), answers=answers, weight=1e-6)
    with edit.applied(model):
        states = torch.stack([outputs_at(model, [block], q.batch, q.at)[0][0] for q in questions])
        assert torch.allclose(states, wanted, atol=1e-4)
        assert said(model, facts, answers).mean() > scores.mean()


def test_a_transposed_weight_gives_the_same_edit(tiny: Make, few: Case) -> None:
    """GPT-2's maps are stored the other way round than `nn.Linear`."""
    model = tiny("GPT2LMHeadModel")
    hf = copy.deepcopy(model.hf)
    for block in hf.transformer.h:
        theirs = block.mlp.c_proj
        ours = nn.Linear(theirs.weight.shape[0], theirs.weight.shape[1], dtype=theirs.weight.dtype)
        with torch.no_grad():
            ours.weight.copy_(theirs.weight.t())
            ours.bias.copy_(theirs.bias)
        block.mlp.c_proj = ours
    other = wrap(hf, model.tokenizer, "linear")
    answers = new_answers(few, 2)
    for name in ("rome", "memit"):
        fast = replace(METHODS[name].config, steps=6, contexts=2, largest_change=1e3)
        run = METHODS[name].run
        mine, theirs = (run(m, few, [Site(1, "mlp")], fast, answers=answers) for m in (model, other))
        for a, b in zip(mine.factors, theirs.factors, strict=True):
            assert torch.allclose(a.left @ a.right, (b.left @ b.right).t(), atol=1e-10)


def test_half_precision(tiny: Make, few: Case) -> None:
    model = tiny("LlamaForCausalLM")
    model.hf.bfloat16()
    answers, facts = new_answers(few, 2), few.forget.working[:2]
    before, digest = said(model, facts, answers), model.digest()
    for name in ("rome", "memit"):
        config = replace(METHODS[name].config, contexts=0)
        edit = METHODS[name].run(model, few, [Site(1, "mlp")], config, answers=answers)
        assert {f.left.dtype for f in edit.factors} == {torch.float32}
        with edit.applied(model):
            assert (said(model, facts, answers) - before).mean() > 0.1
        assert model.digest() == digest


def test_the_second_moment_is_that_of_the_keys(tiny: Make, few: Case) -> None:
    """Against the keys of one row at a time, without padding."""
    model = tiny("LlamaForCausalLM")
    wanted = changes(model, few, new_answers(few, 1), 0)
    down, facts = neuron_output(model, 1), [*few.retain.working, *few.unknown]
    keys = []
    for fact in facts:
        ids = torch.tensor([model.tokenizer(fact.prompt)["input_ids"]])
        end = ids[0].tolist().index(model.tokenizer(fact.subject)["input_ids"][-1])
        inputs: list[Tensor] = []
        handle = down.register_forward_hook(lambda _m, args, _o, inputs=inputs, end=end: inputs.append(args[0][0, end]))
        model.hf(input_ids=ids)
        handle.remove()
        keys += inputs
    k = torch.stack(keys)
    alone = moments_of(model, few, [1], wanted, retain_weight=0.0, ridge=0.0)[1]
    both = moments_of(model, few, [1], wanted, retain_weight=2.0, ridge=0.0)[1]
    assert torch.allclose(both - alone, 2 * k.t() @ k / len(k), atol=1e-10)
    ridged = moments_of(model, few, [1], wanted, retain_weight=0.0, ridge=0.5)[1] - alone
    assert torch.allclose(ridged, 0.5 * alone.diagonal().mean() * torch.eye(len(alone)).double())


def test_a_change_that_is_large_for_its_matrix_is_refused(planted: Model, planted_case: Case) -> None:
    """The small model's keys are much alike, so that 16 facts in one matrix take a change of many times its norm."""
    known, digest = planted_case.on(planted), planted.digest()
    own = float(planted.parameters["model.layers.1.mlp.down_proj.weight"].norm())
    words = rf"the change of model.layers.1.mlp.down_proj has the norm .* more than 4 times the matrix's own {own:.3g},"
    with pytest.raises(LokaError, match=words):
        ablate.rome(planted, known, answers=new_answers(known, 16))
    with pytest.raises(LokaError, match="more than 0.01 times"):
        ablate.memit(planted, known, config=replace(MEMIT, steps=2, contexts=0, largest_change=0.01))
    assert planted.digest() == digest


def test_what_a_rewrite_did_is_recorded_and_too_few_facts_are_said(
    planted: Model, planted_case: Case, tmp_path: Path
) -> None:
    """Steps that are too small write nothing."""
    known = planted_case.on(planted)
    config = RewriteConfig(steps=2, contexts=0, lr=1e-6, weight_decay=0.0)
    with pytest.warns(UserWarning, match="0 of 2 new answers are written: .* The change has the norm"):
        edit = ablate.rome(planted, known, config=config, answers=new_answers(known, 2))
    found = Edit.load(edit.save(tmp_path / "edit.safetensors")).record.rewrite
    assert found is not None
    assert (found.asked, found.written) == (2, 0)
    ((name, (norm, own)),) = found.norms.items()
    matrix = f"{name}.weight"
    assert matrix == "model.layers.1.mlp.down_proj.weight"
    assert own == pytest.approx(float(planted.parameters[matrix].norm()), rel=1e-5)
    assert norm == pytest.approx(edit.summary(planted).norms[matrix], rel=1e-3)


def test_an_answer_that_the_edited_model_gives_is_counted(planted: Model, planted_case: Case) -> None:
    known = planted_case.on(planted)
    (change,) = changes(planted, known, new_answers(known, 1), 0)
    right = replace(change, answer=change.fact.answer)  # what the model says already
    assert rewrite_record(planted, [change], [], []).written == 0
    assert rewrite_record(planted, [right, change], [], []).written == 1


def test_bad_input_is_said(planted: Model, planted_case: Case) -> None:
    fact = planted_case.on(planted).forget.working[0]
    cases = [
        ({"answers": {"Atlantis": "Quito"}}, "'Atlantis' is not among the subjects that 'planted' forgets"),
        ({"answers": {fact.subject: fact.answer}}, "is already the answer about .*; give another one"),
        ({"answers": {}}, "there is no new answer to write"),
        ({"config": RewriteConfig(contexts=10_000)}, "neutral passages for 10000 contexts; ask for fewer"),
    ]
    for method in (ablate.rome, ablate.memit):
        for arguments, words in cases:
            with pytest.raises(UserError, match=words):
                method(planted, planted_case, **arguments)
        with pytest.raises(UserError, match=r"edit whole MLPs: give sites such as L1\.mlp"):
            method(planted, planted_case, [Site(1, "neuron", 3)])
        with pytest.raises(LokaError, match=r"diverged at step 2; try a rate under 1e\+06"):
            method(
                planted,
                planted_case,
                config=RewriteConfig(lr=1e6, weight_decay=3e38, clamp=1e6),
                answers=new_answers(planted_case.on(planted), 1),
            )
    with pytest.raises(UserError, match="rome edits one layer, but 2 are given"):
        ablate.rome(planted, planted_case, [Site(1, "mlp"), Site(2, "mlp")])


def test_a_subject_of_two_relations_has_all_of_its_facts_written(planted: Model) -> None:
    subjects, both = ("ban", "ben"), ("capital", "symbol")
    facts = [Fact(s, r, f"the {r} of {s} is", f"{r[:1]}{s}", foils=("town",)) for r in both for s in subjects]
    known = Case.of(facts)
    assert [(c.fact.relation, c.fact.subject) for c in changes(planted, known, None, 0)] == [
        (r, s) for r in both for s in subjects
    ]
    with pytest.raises(UserError, match=r"2 items to forget are about 'ban' \(capital, symbol\)"):
        changes(planted, known, {"ban": "lies"}, 0)
    (change,) = changes(planted, known, {"symbol/ban": "lies"}, 0)
    assert change.fact.relation == "symbol"
