"""Neighbours are facts that the model states and the case does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from loka.errors import UserError
from loka.knowledge import case, neighbours
from loka.model import Model
from loka.model.edit import Edit


@pytest.fixture(scope="module")
def some(files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case about twenty-four of the capitals that the model was taught; it knows of others, too."""
    relations = {r: dict(of) for r, of in files.base["relations"].items()}
    relations["capital"]["facts"] = dict(list(relations["capital"]["facts"].items())[:24])
    forget = {"capital": list(relations["capital"]["facts"])[:8]}
    return files.write(tmp_path_factory.mktemp("neighbours"), relations=relations, forget=forget)


def test_they_are_what_the_model_was_taught_beyond_the_case(planted: Model, some: Path, files) -> None:
    known = case(some).on(planted)
    taught = files.base["relations"]["capital"]["facts"]
    found = neighbours(planted, known, 12)
    listed = known.spec.relations["capital"].facts
    assert 6 <= len(found) <= 12
    assert len({f.subject for f in found}) == len(found)
    assert not {f.subject for f in found} & {*listed, *known.spec.twins["capital"]}
    assert all(f.prompt in [t.format(f.subject) for t in known.spec.relations["capital"].working] for f in found)
    real = [f for f in found if f.subject in taught]
    assert len(real) >= len(found) / 2
    assert sum(f.answer.startswith(taught[f.subject]) for f in real) >= 0.8 * len(real)


def test_the_same_seed_names_the_same_ones(planted: Model, fresh: Model, some: Path) -> None:
    known = case(some).on(planted)
    assert neighbours(planted, known, 8) == neighbours(fresh, known, 8)


def test_what_states_an_answer_to_be_forgotten_is_left_out(planted: Model, some: Path) -> None:
    known = case(some).on(planted)
    found = neighbours(planted, known, 12)
    first, *rest = known.forget.working
    also = tuple(f.answer.rstrip(".") for f in found[::2])
    other = replace(known, forget=replace(known.forget, working=(replace(first, aliases=also), *rest)))
    planted.memo.pop(("neighbours", known.digest, known.seed, 12))  # the digest is that of the file
    assert neighbours(planted, other, 12) == found[1::2]
    planted.memo.pop(("neighbours", known.digest, known.seed, 12))


def test_they_are_the_originals(planted: Model, some: Path) -> None:
    known = case(some).on(planted)
    with Edit((), (), planted.digest()).applied(planted), pytest.raises(UserError, match="before an edit is applied"):
        neighbours(planted, known, 3)
