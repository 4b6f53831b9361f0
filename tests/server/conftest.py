"""Makes the command line's harness and the services known to pytest."""

from cli_harness import cli
from postgres_server import postgres, postgres_template, postgres_url

__all__ = ["cli", "postgres", "postgres_template", "postgres_url"]
