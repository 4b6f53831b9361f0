"""Another Unix user of this machine, for as long as a test lasts, and a Python with artesian that they can run."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import artesian
from limits import needs

_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixUser:
    """``name`` and ``uid`` of the user. ``folder`` is root's, and everybody gets through it to what is theirs."""

    name: str
    uid: int
    folder: Path

    def python(self) -> Path:
        """Return an interpreter with artesian that the user can run: those below /root are out of reach."""
        base = next((path for path in _pythons() if self.can_run(path)), None)
        needs(base is not None, "a Python of our version that other users can run, such as /usr/bin/python3")
        venv = self.folder / "venv"
        subprocess.run([str(base), "-m", "venv", "--without-pip", str(venv)], check=True, timeout=_TIMEOUT_S)
        site = next((venv / "lib").glob("python*")) / "site-packages"
        source = Path(artesian.__file__).parent
        shutil.copytree(source, site / "artesian", ignore=shutil.ignore_patterns("__pycache__"))
        return venv / "bin" / "python"

    def can_run(self, python: Path) -> bool:
        """Whether the user can run this interpreter, and it is of our version."""
        check = f"import sys, venv; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
        words = ["runuser", "-u", self.name, "--", str(python), "-c", check]
        return subprocess.run(words, capture_output=True, cwd="/", timeout=_TIMEOUT_S).returncode == 0


def _pythons() -> list[Path]:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return [Path(sys.base_prefix, "bin", version), Path("/usr/bin", version), Path("/usr/local/bin", version)]


@contextmanager
def unix_user() -> Iterator[UnixUser]:
    """A user that is there until the end of the block."""
    needs(os.geteuid() == 0, "root, to make another user")
    name = f"artesian-{secrets.token_hex(4)}"
    subprocess.run(
        ["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", name],
        check=True,
        timeout=_TIMEOUT_S,
    )
    folder = Path(tempfile.mkdtemp(prefix="artesian-user-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        uid = int(subprocess.check_output(["id", "-u", name], text=True))
        yield UnixUser(name=name, uid=uid, folder=folder)
    finally:
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True, timeout=_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)
