"""The ``family`` command."""

from tasks.cli.entry import main

__all__ = ["main"]
