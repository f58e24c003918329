"""The `loka` command as it starts: which file has which commands, and what errors become."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from .._util.errors import LokaError, UserError
from .erase import erase
from .erase_data import erase_data
from .late import Late

STOPPED = 130


class Loka(Late):
    """All commands but `loka erase` work on models, so the file that has them imports torch."""

    def others(self) -> typer.Typer:
        return import_module(".commands", __package__).app


app = typer.Typer(
    cls=Loka,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Locate the neurons and heads that hold a piece of knowledge, ablate only those, and verify that it is gone.",
)
erase_data(erase)
app.add_typer(erase, name="erase")


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 the job failed, 2 the input is at fault, 130 stopped."""
    try:
        app()
    except LokaError as error:
        _fail(error)
    except PermissionError as error:
        _fail(UserError(f"cannot use {error.filename}: {error.strerror}. Name a place that you may use."))
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as end:  # typer turns Ctrl-C into this one
        if end.code == STOPPED:
            _stopped()
        raise


def _fail(error: LokaError) -> NoReturn:
    Console(stderr=True).print(f"[bold red]loka:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    sys.exit(error.exit_status)


def _stopped() -> NoReturn:
    Console(stderr=True).print("loka: stopped. The same command goes on where this one ended.", soft_wrap=True)
    sys.exit(STOPPED)
