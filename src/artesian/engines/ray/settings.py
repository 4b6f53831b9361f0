"""What a site says about its Ray: a table ``[engines.NAME]`` with ``kind = "ray"`` in ``artesian.toml``."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from artesian.engines.options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySettings:
    """How artesian uses a Ray; every field is a key of its table.

    ``address`` is the URL of the dashboard, as ``ray start --head`` prints it.
    ``token_file`` holds the token of a Ray that asks for one.
    ``folder`` keeps the files of the attempts. Control plane and nodes see it at the same path; without it
    that is the folder of the state.
    ``python`` is the interpreter with artesian and Ray on the nodes; without it the one that runs here.
    ``accelerators`` says which accelerator of the catalogue a type or resource of Ray is:
    ``{H100 = "H100-SXM5-80GB"}``.
    ``poll_interval_s`` is how often Ray is asked; just after a command it is asked more often.
    ``group_timeout_s``: a placement group that is not there after so long is given up.
    ``pool`` is what its nodes are called together.
    """

    address: str = "http://127.0.0.1:8265"
    token_file: Path | None = None
    folder: Path | None = None
    python: str = sys.executable
    accelerators: Mapping[str, str] = field(default_factory=dict)
    poll_interval_s: float = 1.0
    group_timeout_s: float = 60.0
    pool: str = "default"

    @classmethod
    def of(cls, table: Mapping[str, Any], *, default_pool: str = "default") -> "RaySettings":
        """Return the settings of a table. Raises OptionsError, which names the key."""
        options = Options(table, "an engine of kind ray")
        address = options.text("address") or cls().address
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname:
            options.refuse("address", "the URL of Ray's dashboard", f'address = "{cls().address}"')
        folder, token_file = options.text("folder"), options.text("token_file")
        for key, path in (("folder", folder), ("token_file", token_file)):
            if path is not None and not Path(path).expanduser().is_absolute():
                options.refuse(key, "an absolute path", f'{key} = "/shared/artesian"')
        settings = cls(
            address=address.rstrip("/"),
            token_file=None if token_file is None else Path(token_file).expanduser(),
            folder=None if folder is None else Path(folder).expanduser(),
            python=options.text("python") or sys.executable,
            accelerators=options.mapping("accelerators"),
            poll_interval_s=options.seconds("poll_interval_s", 1.0, at_least=0.1),
            group_timeout_s=options.seconds("group_timeout_s", 60.0, at_least=1.0),
            pool=options.text("pool") or default_pool,
        )
        options.end()
        return settings
