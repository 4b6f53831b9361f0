"""Makes the harness's fixtures known to pytest."""

from engines_harness import harness

__all__ = ["harness"]
