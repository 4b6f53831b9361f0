"""What one control plane is called among several that use the same cluster."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

_FILE = "instance"


def instance_of(root: Path) -> str:
    """Return the name of the control plane that keeps its files in ``root``; it is made up once.

    What an engine starts elsewhere bears it, so that of several control planes none touches another's.
    """
    path, private = root / _FILE, root / f"{_FILE}.{os.getpid()}"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        private.write_text(secrets.token_hex(4))
        with suppress(FileExistsError):
            os.link(private, path)
        private.unlink()
    return path.read_text()
