"""A real sshd on a free port of loopback, with keys of its own, that knows one user: whoever runs the tests."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import guardian
from limits import needs
from ports import free_port
from proc import children

_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_TIMEOUT_S = 180.0

_SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
AllowUsers {user}
"""
_CLIENT = """
Host login
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/{identity}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""


class SshServer:
    """The server, and what a client is told about it: ``ssh -F CONFIG login``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "user_key", "other_key"):
            keygen = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
            subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        self.port = free_port()
        self.know(folder / "host_key.pub")
        facts = {"folder": folder, "port": self.port, "user": self.user}
        (folder / "sshd_config").write_text(_SERVER.format(**facts))
        self.config = self._config("user_key")
        self.stranger_config = self._config("other_key")
        """With a key that the server does not know."""

    def _config(self, identity: str) -> Path:
        path = self.folder / f"ssh_config.{identity}"
        path.write_text(_CLIENT.format(folder=self.folder, port=self.port, user=self.user, identity=identity))
        return path

    def know(self, public_key: Path) -> None:
        """Let the client hold this for the key of the server."""
        kind, key, *_ = public_key.read_text().split()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("sshd", path=_PATH)
        assert program is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it wants an empty folder there
        words: Sequence[str] = (
            program,
            "-D",
            "-f",
            str(self.folder / "sshd_config"),
            "-E",
            str(self.folder / "log"),
        )
        mark = {guardian.MARK: str(self.folder)}
        self._watch = guardian.watch(environments=[mark])
        self._process = subprocess.Popen(
            words, env={**os.environ, **mark}, stdin=subprocess.DEVNULL, start_new_session=True
        )
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not self._listens():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline_s, "sshd does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it, and cut every connection."""
        if self._process is None:
            return
        for pid in [*_descendants(self._process.pid), self._process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None
        guardian.forget(self._watch)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def ssh_server() -> Iterator[SshServer]:
    """A server that is up until the end of the block."""
    missing = [name for name in ("sshd", "ssh", "ssh-keygen") if shutil.which(name, path=_PATH) is None]
    needs(not missing, f"OpenSSH's {', '.join(missing)}: see scripts/services.sh")
    folder = Path(tempfile.mkdtemp(prefix="artesian-ssh-", dir="/tmp"))
    server = SshServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (*_descendants(child), child)]
