"""The command line: parse, call one function, print."""

from rsoup.cli.app import main

__all__ = ["main"]
