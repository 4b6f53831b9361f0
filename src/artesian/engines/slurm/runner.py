"""Where Slurm's commands run: on this machine, or on a login node through the system's ssh.

Words are passed on as they are. Only ssh takes a line for a shell at the other end: it is quoted in
``remote_line`` and nowhere else.
"""

import asyncio
import hashlib
import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from artesian.engines.watching import Unreachable

_SSH_FAILED = 255
_SSH_HINTS = (
    (
        "host key verification failed",
        "known_hosts has another key for it, or none: call `ssh {host}` yourself, and compare the fingerprint",
    ),
    ("permission denied", "nobody is asked for a password: `ssh -o BatchMode=yes {host} true` must work"),
    ("", "see whether `ssh {host} true` works"),
)
"""What to do about what ssh says; the last one is for everything else."""
_SOCKET_BYTES = 108 - 1 - len("/") - 40 - 17
"""The longest folder that a socket of ssh's can be in: there is a hash behind it, and for a moment a suffix."""
_KEPT = ("PATH", "LANG", "SSH_AUTH_SOCK")
"""What of our own environment the commands see. Batch jobs inherit it, so there is no secret in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """Runs commands."""

    async def run(self, words: Sequence[str], *, stdin: str = "", user: str | None = None) -> Done:
        """Run a command to its end, as ``user`` where one is given. Raises Unreachable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRunner:
    """Runs commands on this machine. ``extra_env`` is added to the little that they see."""

    extra_env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0

    async def run(self, words: Sequence[str], *, stdin: str = "", user: str | None = None) -> Done:
        """Run it as a child process; as another user through ``runuser``, which takes root."""
        prefix = () if user is None else ("runuser", "-u", user, "--")
        return await _run((*prefix, *words), stdin, _environment(user, self.extra_env), self.timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshRunner:
    """Runs commands on ``host`` by the system's ssh: the user's own configuration, keys and known hosts.

    One connection is kept open for all (ControlMaster), by a socket in ``socket_folder(root)``. Nobody is ever
    asked for a password. As another user it goes through ``sudo -n``, which the login node must allow.
    """

    host: str
    root: Path
    options: tuple[str, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0

    async def run(self, words: Sequence[str], *, stdin: str = "", user: str | None = None) -> Done:
        """Run it on the host; ssh's own failures are Unreachable."""
        prefix = () if user is None else ("sudo", "-n", "-u", user, "--")
        settings = [f"{name}={value}" for name, value in self.extra_env.items()]
        line = remote_line([*prefix, *(["env", *settings] if settings else []), *words])
        words = (*self.command(socket_folder(self.root)), line)
        done = await _run(words, stdin, _environment(None, {}), self.timeout_s)
        if done.code == _SSH_FAILED:
            said = _last_line(done.stderr)
            hint = next(hint for words, hint in _SSH_HINTS if words in said.lower())
            raise Unreachable(f"ssh {self.host}: {said}", hint=hint.format(host=self.host))
        return done

    def command(self, sockets: Path | None) -> tuple[str, ...]:
        """Return the words up to the remote line. ``sockets``: where that of the open connection is."""
        settings = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15"]
        if sockets is not None:
            settings += ["ControlMaster=auto", f"ControlPath={sockets}/%C", "ControlPersist=600"]
        flags = tuple(word for setting in settings for word in ("-o", setting))
        return ("ssh", "-T", *flags, *self.options, "--", self.host)


def socket_folder(root: Path) -> Path | None:
    """Return a folder for the sockets of who keeps its files in ``root``: that, or where its path is too long for
    a socket, one of the user's own among the temporary files. None where somebody else has that name there: then each
    command makes a connection of its own.
    """
    root = root.absolute()
    if len(os.fsencode(root)) <= _SOCKET_BYTES:
        return root
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    path = Path(tempfile.gettempdir(), f"artesian-{os.geteuid()}-{digest}")
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return path if is_own and len(os.fsencode(path)) <= _SOCKET_BYTES else None


def remote_line(words: Sequence[str]) -> str:
    """Return the line that a POSIX shell splits into exactly these words."""
    return shlex.join(words)


async def _run(words: Sequence[str], stdin: str, env: Mapping[str, str], timeout_s: float) -> Done:
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd="/",
            start_new_session=True,  # a Ctrl-C is meant for us
        )
    except OSError as error:
        raise Unreachable(f"{words[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(stdin.encode())
    except BaseException as error:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise Unreachable(f"{words[0]} did not answer within {timeout_s:g} s") from error
        raise
    assert process.returncode is not None
    return Done(
        code=process.returncode, stdout=out.decode(errors="replace"), stderr=err.decode(errors="replace")
    )


def _environment(user: str | None, extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with suppress(KeyError):
        entry = pwd.getpwuid(os.geteuid()) if user is None else pwd.getpwnam(user)
        kept |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return {**kept, **extra}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it failed without a word"
