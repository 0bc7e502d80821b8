"""The command line: `gradkit check`, `gradkit explain`, `gradkit ops`."""

from gradkit.cli._app import app, main

__all__ = ["app", "main"]
