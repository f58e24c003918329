"""Floor 6: the `loka` command. Parse, call, print; no logic."""

from .main import main

__all__ = ["main"]
