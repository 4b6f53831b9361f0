"""What a site says about its Slurm: a table ``[engines.NAME]`` with ``kind = "slurm"`` in ``artesian.toml``."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artesian.engines.options import Options

_RESERVED = (
    "--comment",
    "--job-name",
    "--nodelist",
    "--nodes",
    "--gres",
    "--requeue",
    "--output",
    "--error",
    "--chdir",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    """How artesian uses a Slurm; every field is a key of its table.

    ``partition`` and ``account`` are those of all jobs; without a partition, the default one.
    ``ssh`` is the login node that Slurm's commands run on, as ssh knows it; without it they run here.
    ``folder`` keeps the files of the attempts. Control plane and nodes see it at the same path; without it
    that is the folder of the state.
    ``python`` is the interpreter with artesian on the nodes; without it the one that runs here.
    ``sbatch_args`` go to sbatch as they are, after artesian's own.
    ``accelerators`` says which accelerator of the catalogue a type of GRES is: ``{gpu_a = "H100-SXM5-80GB"}``.
    ``conf`` is what SLURM_CONF names, where that is not Slurm's default.
    ``poll_interval_s`` is how often Slurm is asked; just after a command it is asked more often.
    ``pending_limit_s``: an attempt that Slurm has not started for so long is taken back, to be placed anew.
    ``pool`` is what its nodes are called together.
    ``submit_as_user``: jobs run as the user who submitted them; it takes root here, or sudo on the login node.
    """

    partition: str | None = None
    account: str | None = None
    ssh: str | None = None
    ssh_args: tuple[str, ...] = ()
    folder: Path | None = None
    python: str = sys.executable
    sbatch_args: tuple[str, ...] = ()
    accelerators: Mapping[str, str] = field(default_factory=dict)
    conf: str | None = None
    poll_interval_s: float = 2.0
    pending_limit_s: float = 120.0
    submit_as_user: bool = False
    pool: str = "default"

    @classmethod
    def of(cls, table: Mapping[str, Any], *, default_pool: str = "default") -> "SlurmSettings":
        """Return the settings of a table. Raises OptionsError, which names the key."""
        options = Options(table, "an engine of kind slurm")
        folder = options.text("folder")
        if folder is not None and not Path(folder).expanduser().is_absolute():
            options.refuse(
                "folder", "an absolute path, the same on every node", 'folder = "/shared/artesian"'
            )
        sbatch_args = options.texts("sbatch_args")
        for word in sbatch_args:
            if not word.startswith("-"):
                options.refuse(
                    "sbatch_args", 'options such as "--qos=high", each with its value in one word', None
                )
            if word.partition("=")[0] in _RESERVED:
                options.refuse("sbatch_args", f"nothing that artesian sets itself, such as {word}", None)
        settings = cls(
            partition=options.text("partition"),
            account=options.text("account"),
            ssh=options.text("ssh"),
            ssh_args=options.texts("ssh_args"),
            folder=None if folder is None else Path(folder).expanduser(),
            python=options.text("python") or sys.executable,
            sbatch_args=sbatch_args,
            accelerators=options.mapping("accelerators"),
            conf=options.text("conf"),
            poll_interval_s=options.seconds("poll_interval_s", 2.0, at_least=0.1),
            pending_limit_s=options.seconds("pending_limit_s", 120.0, at_least=1.0),
            submit_as_user=options.flag("submit_as_user"),
            pool=options.text("pool") or default_pool,
        )
        if settings.ssh is not None and settings.ssh.startswith("-"):
            options.refuse("ssh", "a host", 'ssh = "login.example.org"')
        options.end()
        return settings
