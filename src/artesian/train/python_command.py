"""Command lines that run a script or a module with this very Python, which a template can then run as well.

A control plane gets whole command lines from its users. What it can tell of one is what the system would do
with it on the node where it runs: so the agent looks there, with the environment that the workers get.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCommand:
    """``script`` is a file, or the name of a module; ``file`` is where its code is."""

    script: str
    args: tuple[str, ...]
    is_module: bool
    file: Path


def python_command(
    words: Sequence[str], environ: Mapping[str, str], own: str = sys.executable
) -> PythonCommand | None:
    """Return what the command runs, where it runs a script or module with the interpreter ``own``; else None.

    Options before it change what the interpreter does, and a template has made its choice: none but ``-u`` is
    taken. So is ``PYTHONSAFEPATH``, with which a script does not find the modules beside it.
    """
    if not is_same_python(words[0], environ, own) or environ.get("PYTHONSAFEPATH"):
        return None
    rest = list(words[1:])
    while rest and rest[0] == "-u":
        rest.pop(0)
    if len(rest) > 1 and rest[0] == "-m":
        file = _module_file(rest[1])
        if file is None:
            return None
        return PythonCommand(script=rest[1], args=tuple(rest[2:]), is_module=True, file=file)
    if not rest or rest[0].startswith("-") or not os.path.isfile(rest[0]):
        return None  # such as -c, or a folder with a __main__.py in it
    if rest[0].endswith((".pyc", ".pyz", ".zip")):
        return None
    return PythonCommand(script=rest[0], args=tuple(rest[1:]), is_module=False, file=Path(rest[0]))


def is_same_python(word: str, environ: Mapping[str, str], own: str) -> bool:
    """Return whether ``word`` starts the interpreter ``own`` in the environment (the venv) that is its own.

    A venv's interpreter is a link to that of all others: what tells them apart is the folder of the link.
    """
    found = shutil.which(word, path=environ.get("PATH", os.defpath))
    if found is None or not own:
        return False
    theirs, ours = Path(found), Path(own)
    return theirs.resolve() == ours.resolve() and theirs.parent.resolve() == ours.parent.resolve()


def _module_file(name: str) -> Path | None:
    """Return the file that ``python -m name`` runs, without importing anything; None where there is none."""
    places: Sequence[str] | None = [os.getcwd(), *sys.path]
    spec = None
    for part in name.split("."):
        spec = None if places is None else PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    if places is not None:
        spec = PathFinder.find_spec("__main__", places)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
