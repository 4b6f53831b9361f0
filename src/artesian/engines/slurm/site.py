"""A Slurm engine from a table of ``artesian.toml``."""

from artesian.engines.base import Site
from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.engine import SlurmEngine
from artesian.engines.slurm.runner import LocalRunner, Runner, SshRunner
from artesian.engines.slurm.settings import SlurmSettings


def make(site: Site) -> SlurmEngine:
    """Return the engine of a site. Raises OptionsError."""
    settings = SlurmSettings.of(site.options, default_pool=site.name)
    extra_env = {} if settings.conf is None else {"SLURM_CONF": settings.conf}
    runner: Runner = LocalRunner(extra_env=extra_env)
    if settings.ssh is not None:
        runner = SshRunner(host=settings.ssh, root=site.root, options=settings.ssh_args, extra_env=extra_env)
    return SlurmEngine(site.root, settings, SlurmClient(runner), site.clock, name=site.name)
