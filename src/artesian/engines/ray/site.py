"""A Ray engine from a table of ``artesian.toml``."""

from artesian.engines.base import Site
from artesian.engines.ray.client import RayClient
from artesian.engines.ray.engine import RayEngine
from artesian.engines.ray.settings import RaySettings


def make(site: Site) -> RayEngine:
    """Return the engine of a site. Raises OptionsError."""
    settings = RaySettings.of(site.options, default_pool=site.name)
    return RayEngine(site.root, settings, RayClient(settings), site.clock, name=site.name)
