"""Makes the fixtures of services known to pytest."""

from postgres_server import postgres, postgres_template, postgres_url

__all__ = ["postgres", "postgres_template", "postgres_url"]
