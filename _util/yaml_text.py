"""YAML from files that somebody else wrote: plain data, no deeper than a file by hand, no larger than its text.

Of two equal keys the last would win without a word; such a file is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

import yaml

from .errors import UserError

T = TypeVar("T")
DEEPEST = 50
MERGE = "tag:yaml.org,2002:merge"  # the key <<, whose own keys may be overridden
SPARE = 10_000  # nodes that aliases may stand for, beyond one for each character


class _Extent(NamedTuple):
    """How much a node holds: its nodes, and their levels."""

    nodes: int
    levels: int


class _Loader(yaml.SafeLoader):
    """The safe loader with bounded depth, aliases only as far as they do not let the file grow, and no key twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.most, self.nodes, self.depth = len(text) + SPARE, 0, 0
        self.extents: dict[int, _Extent] = {}
        self.checked: set[int] = set()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        self._check(self.depth + 1, event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.extents:
                raise self._fault(f"the alias *{event.anchor} stands inside its own value", event)
            nodes, levels = self.extents[id(node)]
            self._check(self.depth + levels, event)
        else:
            nodes = 1
            self.extents[id(node)] = _extent(node, self.extents)
        self.nodes += nodes
        if self.nodes > self.most:
            raise self._fault("its aliases stand for far more than the file holds; write the values out", event)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Every mapping comes by here before anything is merged into it, and again where it is merged itself."""
        if id(node) not in self.checked:
            self.checked.add(id(node))
            self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            if (value := self.construct_object(key)) in seen:
                problem = f"{key.value[:60]!r} is given twice; keep one of them"
                raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
            seen.add(value)

    def _check(self, depth: int, event: yaml.Event) -> None:
        if depth > DEEPEST:
            raise self._fault(f"it is nested over {DEEPEST} levels deep", event)

    def _fault(self, problem: str, event: yaml.Event) -> yaml.YAMLError:
        return yaml.MarkedYAMLError(None, None, problem, event.start_mark)


def _extent(node: yaml.Node, known: dict[int, _Extent]) -> _Extent:
    if isinstance(node, yaml.MappingNode):
        parts = [known[id(part)] for pair in node.value for part in pair]
    else:
        parts = [known[id(part)] for part in node.value] if isinstance(node, yaml.SequenceNode) else []
    return _Extent(1 + sum(p.nodes for p in parts), 1 + max((p.levels for p in parts), default=0))


def compose(text: str, what: str) -> yaml.Node | None:
    """The nodes of a YAML document, with the place of each.

    Raises:
        UserError: not YAML, nested over 50 levels deep, or with aliases that stand for far more than the text holds.
    """
    return _run(text, what, lambda loader: loader.get_single_node())


def read_yaml(text: str, what: str) -> object:
    """The value of a YAML document. Raises as `compose` does, for two equal keys, and for values that tags forbid."""
    return _run(text, what, lambda loader: loader.get_single_data())


def _run(text: str, what: str, read: Callable[[_Loader], T]) -> T:
    try:
        return read(_Loader(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is not YAML"
        raise UserError(f"{what} is not valid YAML{where}: {problem}. Fix that line.") from error
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        # PyYAML converts dates and numbers unchecked
        raise UserError(f"{what} has a value that is not YAML ({error}); put quotes around it.") from error
