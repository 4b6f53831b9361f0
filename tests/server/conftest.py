"""Makes the command line's harness known to pytest."""

from cli_harness import cli

__all__ = ["cli"]
