"""What an execution works on: the model with all earlier edits in place, and the cases of the requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .._util.errors import UserError
from ..knowledge import Case, CaseSpec
from ..model import Model
from .assessment import impact_of
from .earlier import Earlier
from .impact import Impact
from .lineage import lineage, with_edits
from .matching import Hit
from .material import Material, case_of, whole_case
from .register import Register
from .safeguards import Utility, utility
from .shown import Shown, shown_by

JOINT = "+"  # between the ids in the name of a batch's case


@dataclass(frozen=True)
class State:
    """What a model does: with the rest, and with the records of each request."""

    utility: Utility
    shown: Mapping[str, Shown]


@dataclass(frozen=True)
class Job:
    """What an execution works on.

    Attributes:
        ids: the requests.
        model: the model with the edits of all earlier erasures in place.
        case: all records, whether or not the model shows that it knows them.
        own: the case of each request by itself.
        earlier: the earlier erasures, with their records.
        before: what the model does now.
    """

    ids: tuple[str, ...]
    model: Model
    case: Case
    own: Mapping[str, CaseSpec]
    earlier: Earlier
    before: State

    @classmethod
    def of(cls, register: Register, ids: Sequence[str], model: Model, material: Material) -> Job:
        """Put the earlier edits in place, and read the records. The same material gives the same cases.

        Raises:
            UserError: as `case_of`, `Earlier.of` and `with_edits`; or nothing to tell damage by.
        """
        model = with_edits(register, model, lineage(register, model.digest()).missing)
        earlier = Earlier.of(register, lineage(register, model.digest()).present, material)
        own = {id: own_case(register, ids, id, material, earlier) for id in ids}
        shown = {id: shown_by(model, spec) for id, spec in own.items()}
        spec = own[ids[0]] if len(ids) == 1 else _joint_case(register, ids, material, earlier)
        case = whole_case(spec, sum(found.known for found in shown.values()))
        if len(case.retain.sealed) < 1:
            raise UserError(f"{ids[0]} has too few other records to tell damage by; give more training data.")
        return cls(tuple(ids), model, case, own, earlier, State(utility(model, case), shown))

    def state(self, model: Model) -> State:
        """What a model does with the rest, and with the records of each request."""
        return State(utility(model, self.case), {id: shown_by(model, spec) for id, spec in self.own.items()})


def own_case(register: Register, ids: Sequence[str], id: str, material: Material, earlier: Earlier) -> CaseSpec:
    """The case of one of the requests that are executed as one. Nobody's records are among those to keep."""
    beside = [impact_of(register, each) for each in ids if each != id]
    return case_of(id, impact_of(register, id), material, beside=beside, without=earlier.texts)


def _joint_case(register: Register, ids: Sequence[str], material: Material, earlier: Earlier) -> CaseSpec:
    """The case of the records of several requests."""
    impact = joined([impact_of(register, id) for id in ids])
    return case_of(JOINT.join(ids), impact, material, without=earlier.texts)


def joined(impacts: Sequence[Impact]) -> Impact:
    """The hits of several requests in the same files. A row counts if it counts for one of them."""
    files = []
    for one in impacts[0].files:
        strongest: dict[int, tuple[Hit, int]] = {}
        for file in (file for impact in impacts for file in impact.files if file.digest == one.digest):
            for hit, tokens in zip(file.hits, file.tokens, strict=True):
                if hit.row not in strongest or _weight(hit) > _weight(strongest[hit.row][0]):
                    strongest[hit.row] = hit, tokens
        hits, tokens = zip(*(strongest[row] for row in sorted(strongest)), strict=True) if strongest else ((), ())
        files.append(replace(one, hits=hits, tokens=tokens))
    return replace(impacts[0], files=tuple(files))


def _weight(hit: Hit) -> int:
    """0: somebody rejected it; 1: nobody confirmed it, and it is weak; 2: it counts."""
    return 2 if hit.counts() else int(hit.confirmed is None)
