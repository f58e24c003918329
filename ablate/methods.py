"""All methods by name: how to run one with arguments from JSON, such as a recipe's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from inspect import Parameter, signature, unwrap
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, ConfigDict, JsonValue, TypeAdapter, ValidationError

from .._util.errors import UserError
from .._util.records import check_size
from ..knowledge import Case
from ..model import Edit, Model, Site
from .common import Progress, progress_argument
from .follow_up import FOLLOW_UP, follow_up
from .leace import leace
from .lora import lora
from .mean import mean
from .memit import memit
from .resample import resample
from .reset import reset
from .rome import rome
from .rounds import rounds
from .selective_dampening import selective_dampening
from .task_vector import task_vector
from .training.config import TrainingConfig
from .tune import tune
from .zero import zero

TYPES = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
FIXED = ("model", "case", "sites", "progress", "stop")


@dataclass(frozen=True)
class Method:
    """One method.

    Args:
        name: its key in `METHODS`, and its name in recipes and records.
        run: called as `run(model, case, sites, **arguments)`.
        without_sites: what it edits if `sites` is `None`: `own`, sites of its own choice, or `all`, all weights of the
            blocks. A method without this field needs a list of sites.
        needs: what the model must have, such as `bias`: output maps with a bias.
    """

    name: str
    run: Callable[..., Edit]
    without_sites: Literal["own", "all"] | None = None
    needs: tuple[str, ...] = ()

    @property
    def config(self) -> Any:
        """The method's default configuration; `None` if it takes none."""
        parameter = signature(self.run).parameters.get("config")
        return None if parameter is None or parameter.default is Parameter.empty else parameter.default

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments from JSON values. Where the default is a record, the value names the fields that differ.

        The values may come from a file that somebody else wrote, so a text is never taken for a path: a caller who
        wants files written gives a `Path`.

        Raises:
            UserError: an argument that the method does not take or of another type, a number that no job can use, a
                path, or a record that cannot be read.
        """
        takes = {k: p for k, p in signature(self.run).parameters.items() if k not in FIXED}
        if unknown := [name for name in arguments if name not in takes]:
            raise UserError(f"{self.name} has no argument {unknown[0]!r}; it takes {', '.join(takes) or 'none'}.")
        found = {name: self._read(name, takes[name].default, value) for name, value in arguments.items()}
        if found.get("first_arguments"):
            find(found.get("first", takes["first"].default)).read(found["first_arguments"])
        return found

    def _read(self, name: str, default: Any, value: Any) -> Any:
        """A record from JSON values, with missing fields from its default; any other value as the signature has it."""
        if is_dataclass(default) and hasattr(default, "from_json") and isinstance(value, Mapping):
            kind: Any = type(default)
            return kind.from_json(value, default)
        run = unwrap(self.run)
        hint = get_type_hints(run, localns={"Model": Model}, include_extras=True)[name]
        if Path in get_args(hint) and isinstance(value, str):
            raise UserError(
                f"{self.name} takes no {name} from a file ({short(value)}); leave it out, or call it from Python with "
                "a pathlib.Path."
            )
        check_size(name, value, self.name)
        try:
            found = TypeAdapter(hint, config=None if is_dataclass(hint) else TYPES).validate_python(value)
        except ValidationError as error:
            says = error.errors()[0]["msg"].lower()
            raise UserError(f"{self.name} cannot have {name} = {short(value)}: {says}.") from None
        return value if found == value else found  # an integer stays one where any number will do


def _first(name: str) -> str:
    if name == "follow_up":
        raise ValueError("a follow-up cannot begin with a follow-up")
    return find(name).name


def _follow_up(
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    config: TrainingConfig = FOLLOW_UP,
    *,
    first: Annotated[str, AfterValidator(_first)] = "zero",
    first_arguments: Mapping[str, JsonValue] | None = None,
    own_sites: bool = False,
    progress: Progress | None = None,
) -> Edit:
    """`follow_up`, with its first method by name."""
    method = find(first)
    run = partial(method.run, **method.read(first_arguments or {}))
    return follow_up(model, case, sites, config, first=run, own_sites=own_sites, progress=progress)


_ROWS = (
    Method("zero", zero),
    Method("mean", mean, needs=("bias",)),
    Method("resample", resample, needs=("bias",)),
    Method("selective_dampening", selective_dampening, without_sites="all"),
    Method("leace", leace),
    Method("rome", rome, without_sites="own"),
    Method("memit", memit, without_sites="own"),
    Method("task_vector", task_vector, without_sites="all"),
    Method("tune", tune, without_sites="all"),
    Method("reset", reset, without_sites="all"),
    Method("lora", lora, without_sites="all"),
    Method("rounds", rounds),
    Method("follow_up", _follow_up, without_sites="all"),
)
METHODS: dict[str, Method] = {method.name: method for method in _ROWS}


def find(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: an unknown name.
    """
    if name not in METHODS:
        raise UserError(f"{name!r} is not a method; choose from {', '.join(METHODS)}.")
    return METHODS[name]


def configure(name: str, **fields: Any) -> Any:
    """A method's default configuration, with some fields changed.

    `TrainingConfig()` and `RewriteConfig()` have the defaults of `tune` and `rome`. This function starts from the
    defaults of the named method.

    Raises:
        UserError: an unknown method, a method without a configuration, or an unknown field.

    Example:
        edit = loka.ablate.memit(model, case, config=loka.ablate.configure("memit", contexts=4))
    """
    config = find(name).config
    if config is None:
        raise UserError(f"{name} has no configuration; pass its arguments directly.")
    return type(config).from_json(fields, config)


def perform(
    name: str,
    model: Model,
    case: Case,
    sites: Iterable[Site] | None,
    arguments: Mapping[str, Any],
    *,
    progress: Progress | None = None,
) -> Edit:
    """Run the named method. Each argument is a JSON value or what the method itself takes.

    Raises:
        UserError: an unknown name or argument, or input that the method rejects.
    """
    method = find(name)
    return method.run(model, case, sites, **method.read(arguments), **progress_argument(method.run, progress))
