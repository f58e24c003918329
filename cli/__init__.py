"""Floor 8: the `loka` command. Parse, call, print; no logic."""

from .entry import main

__all__ = ["main"]
