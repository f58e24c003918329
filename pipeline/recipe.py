"""Recipes, which say how a run edits. Each is a YAML file; the built-in ones are in `recipes/`."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import yaml
from pydantic import JsonValue

from .. import locate
from .._util.errors import UserError
from .._util.records import read_record
from .._util.yaml_text import read_yaml
from ..ablate import RewriteConfig, TrainingConfig
from ..ablate.methods import find
from ..ablate.training.twins import has_twins
from ..knowledge import Case
from ..model import Part

FOLDER = Path(__file__).parent / "recipes"
DEFAULT = "quick"
UPDATE = "update"
SITES = 600


@dataclass(frozen=True)
class Recipe:
    """The description of how a run edits: a method of `loka.ablate` on the best sites.

    Args:
        name: the name of the recipe.
        method: a name in `loka.ablate.METHODS`.
        part: the part of the model that the sites are of.
        sites: the number of best sites to edit. With 0, `rome` and `memit` choose MLPs themselves, and a trained edit
            changes all weights.
        locator: the name in `loka.locate.METHODS` of the locator that ranks the sites; by default that of the run.
        config: the method's configuration; by default the method's own.
        arguments: other arguments of the method.
        without_twins: fields of `config` that change for a case without twins of a forgotten relation, such as an
            objective that needs none.

    Raises:
        UserError: an unknown method or locator, or a number of sites that does not fit the method.

    Example:
        recipe = Recipe.load("quick")
        loka.run("smollm2", "capitals", out="runs/mine", recipe=dataclasses.replace(recipe, sites=300))
    """

    name: str = "unnamed"
    method: str = "tune"
    part: Part = "neuron"
    sites: int = SITES
    locator: str | None = None
    config: TrainingConfig | RewriteConfig | None = None
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    without_twins: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        method = find(self.method)
        if self.config is None:
            object.__setattr__(self, "config", method.config)
        method.read(self.arguments)
        if "config" in self.arguments:
            raise UserError("a recipe's config is a field of its own, not one of its arguments; move it up.")
        if self.locator is not None and self.locator not in locate.METHODS:
            raise UserError(f"{self.locator!r} is not a locator; choose from {', '.join(locate.METHODS)}.")
        if self.sites < 0 or (not self.sites and method.without_sites is None):
            raise UserError(f"{self.method} cannot edit {self.sites} sites; give 1 or more.")
        if self.sites and method.without_sites == "own" and self.part != "mlp":
            raise UserError(
                f"{self.method!r} edits whole MLPs and chooses them itself; give sites: 0 or part: mlp, not "
                f"{self.sites} sites of part {self.part}."
            )

    def on(self, case: Case) -> Recipe:
        """This recipe for a case: `without_twins` applies if an item to forget has no twins."""
        if has_twins(case) or not self.config:
            return self
        config = self.config.to_json() | dict(self.without_twins)
        return replace(self, config=type(self.config).from_json(config))

    def to_json(self) -> dict[str, JsonValue]:
        """All fields, as `from_json` reads them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        mappings = {name: dict(values[name]) for name in ("arguments", "without_twins")}
        return {**values, **mappings, "config": self.config and self.config.to_json()}

    @classmethod
    def from_json(cls, values: object) -> Recipe:
        """A recipe from JSON values. Missing fields take the defaults of `Recipe`, those of `config` the method's.

        Raises:
            UserError: an unknown key, a value of another type, or a value that `Recipe` rejects.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"a recipe must map names to values, but it is {reprlib.repr(values)}.")
        given = dict(values)
        method = find(str(given.get("method", cls.method)))
        if method.without_sites == "own":
            given = {"part": "mlp", "sites": 0, **given}
        for name in ("config", "without_twins"):
            if given.get(name) and method.config is None:
                also = "" if name == "config" else f", and {name} too"
                raise UserError(f"{method.name} has no config; leave it out{also}.")
            given[name] = {} if given.get(name) is None else given[name]
        if method.config is None:
            given["config"] = None
        else:
            given["config"] = type(method.config).from_json(given["config"], method.config)
            type(method.config).from_json(given["without_twins"], given["config"])
        return read_record(cls, given, "a recipe")

    def to_yaml(self) -> str:
        """The recipe as the text of a file that `load` reads."""
        return yaml.safe_dump(self.to_json(), sort_keys=False, allow_unicode=True)

    @classmethod
    def load(cls, name: str | Path) -> Recipe:
        """A built-in recipe by its name, or one from a YAML file.

        Raises:
            UserError: neither of these, or a file that is not a recipe.
        """
        built_in = FOLDER / f"{name}.yaml"
        path = built_in if str(name) in recipes() else Path(name)
        if not path.is_file():
            raise UserError(
                f"{str(name)!r} is neither a recipe nor a YAML file; choose from {', '.join(recipes())}, or a file."
            )
        try:
            values = read_yaml(path.read_text(encoding="utf-8"), "its text")
            return cls.from_json({"name": path.stem, **values} if isinstance(values, Mapping) else values)
        except UnicodeDecodeError as error:
            raise UserError(f"the recipe {str(path)!r} is not text in UTF-8 ({error}); correct it.") from error
        except UserError as error:
            raise UserError(f"the recipe {str(path)!r} cannot be used: {error}") from error


def default_recipe(case: Case) -> Recipe:
    """The recipe of a run that names none: `update` if the case gives new answers, else `quick`."""
    return Recipe.load(UPDATE if case.updates else DEFAULT).on(case)


def recipes() -> list[str]:
    """The names of the built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
