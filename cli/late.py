"""Groups of commands whose other commands are imported when one of them, or the list of all, is asked for."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class Late(TyperGroup):
    """A group that starts with the commands that need little."""

    def others(self) -> typer.Typer:
        """The other commands; importing these may take seconds."""
        raise NotImplementedError

    def list_commands(self, ctx: Any) -> list[str]:
        """All names: the others first, as they are most of what there is."""
        own = list(self.commands)
        self._add_others()
        return [*(name for name in self.commands if name not in own), *own]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, if there is one."""
        if cmd_name not in self.commands:
            self._add_others()
        return super().get_command(ctx, cmd_name)

    def _add_others(self) -> None:
        for name, command in typer.main.get_group(self.others()).commands.items():
            self.commands.setdefault(name, command)
