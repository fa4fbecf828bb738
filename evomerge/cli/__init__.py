"""The command line; `main` is its door."""

from evomerge.cli.main import build_parser, main

__all__ = ["build_parser", "main"]
