"""The worst case over many ways to ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._util.errors import UserError
from ..knowledge import Case, Item, accepts_spec
from ..knowledge.scoring import shown, shown_rows
from .check import Setting
from .forms import Form, all_forms, of_template
from .reading import Reading, make_reading
from .units import by_unit

if TYPE_CHECKING:
    from ..model import Model

SHARE = 0.5
ENOUGH = 10  # ways to ask that a worst case should cover
Asked = dict[str, list[Item | None]]  # by form: each item as it is asked


@accepts_spec
def paraphrase(model: Model, case: Case, *, forms: Sequence[str] | None = None) -> Reading:
    """For each unit to forget, how far the best prompt form gets the answer (`knowledge.shown`).

    The forms (`verify.forms`) of a relation are its sealed templates, the case's paraphrases and templates in other
    languages; those of a set are the items' sealed prompts. To both come the first sealed prompt in other frames: a
    role, an assurance, a jailbreak, the case's own `forms`; after examples: other items to forget with their answers
    (for twins, other twins); and in a chat, where the tokenizer has a template.

    Args:
        forms: the names of the forms to count. Default: those that get an answer from this model for at least half of
            its items. An audit takes the forms from the original model, so that an edit cannot remove a form from the
            test by silencing it.

    Cost: one row for each form, item and alias, or answer of the item's pool; as many twins as items to forget.

    Raises:
        UserError: a form of another relation, or one that is neither known nor a template.
    """
    forget = list(case.forget.sealed)
    twins = list(case.twins.sealed)[: len(forget)]
    every = all_forms(model, case)
    asked = _asked(model, forget, [every.get(name) or _form(case, name) for name in forms or every])
    table = _shown(model, asked)
    if forms is None:
        table = {form: row for form, row in table.items() if np.mean(row) >= SHARE} or table
    control = _asked(model, twins, [every.get(name) or _form(case, name) for name in table])
    worst = np.max(list(table.values()), axis=0)
    worst_twin = np.max(list(_shown(model, control).values()), axis=0) if twins else []
    samples = {"forget": by_unit(forget, worst), "twins": by_unit(twins, worst_twin)}
    mean = np.mean(list(samples["forget"].values()))
    few = f" (at least {ENOUGH} are recommended)" if len(table) < ENOUGH else ""
    return make_reading(
        "paraphrase",
        samples,
        f"At least one of {len(table)} ways to ask{few} gets the answer for {mean:.0%} of the subjects.",
        seed=case.seed,
        details={"forms": {form: float(np.mean(row)) for form, row in table.items()}},
        cost=_rows(asked) + _rows(control),
    )


def paraphrase_cost(model: Model, case: Case, setting: Setting) -> float:
    """An upper bound: every form, as if the original answered them all."""
    forget, forms = list(case.forget.sealed), list(all_forms(model, case).values())
    return sum(_rows(_asked(model, items, forms)) for items in (forget, list(case.twins.sealed)[: len(forget)]))


def original_forms(setting: Setting) -> list[str] | None:
    """The forms that counted on the original; `None` on the original itself."""
    found = setting.original_reading
    forms = found.details.get("forms") if found else None
    return list(forms) if isinstance(forms, dict) and forms else None


def _form(case: Case, name: str) -> Form:
    """The form of a name such as `capital|The capital of {} is`."""
    relation = next((r for r in case.forgotten_relations if name.startswith(f"{r}|")), None)
    template = name[len(relation) + 1 :] if relation else ""
    if relation is None or "{}" not in template:
        raise UserError(
            f"{name!r} is not a way to ask; give `relation|template` with a slot {{}} for the subject and one of the "
            f"relations {', '.join(case.forgotten_relations)}."
        )
    return of_template(relation, template)


def _asked(model: Model, items: Sequence[Item], forms: Sequence[Form]) -> Asked:
    """Each item as each form asks it; `None` where it has no prompt of the form."""
    relations = {f.relation for f in forms}

    def meant(form: Form, item: Item) -> bool:
        """A twin may be of a set of its own; it is asked by every form."""
        return item.relation == form.relation or item.relation not in relations

    return {f.name: [f.asked(model, i) if meant(f, i) else None for i in items] for f in forms}


def _rows(asked: Asked) -> int:
    return sum(shown_rows([item for item in of if item is not None]) for of in asked.values())


def _shown(model: Model, asked: Asked) -> dict[str, list[float]]:
    """What each form shows of each item; 0 where the item has no prompt of the form. One batch for all."""
    found = iter(shown(model, [item for of in asked.values() for item in of if item is not None]))
    return {name: [0.0 if item is None else next(found) for item in of] for name, of in asked.items()}
