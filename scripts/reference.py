"""Write the generated half of the reference: ``python scripts/reference.py [--check]``.

``docs/reference/cli.md`` is made from the commands, ``docs/reference/api.md`` from the docstrings of the
public modules, which are read as text: no module is run. ``--check`` writes nothing, and fails where what is
committed differs.
"""

import argparse
import ast
import difflib
import inspect
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import click

from artesian.cli.main import COMMANDS, cli
from artesian.train import __all__ as train_names
from artesian.train import launch
from artesian.wire import __all__ as wire_names

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
SOURCES = ROOT / "src"
MADE = "<!-- Made by `python scripts/reference.py`. Change the docstrings, not this file. -->"

SECTIONS: dict[str, dict[str, Collection[str] | None]] = {
    "Training": {
        "artesian.train.run": train_names,
        "artesian.train.membership": train_names,
        "artesian.train.checkpoint": train_names,
        "artesian.train.data": train_names,
        "artesian.train.errors": train_names,
    },
    "Data and guards": {
        f"artesian.train.{name}": None
        for name in (
            *("loader", "sources", "cursor", "guards", "stragglers", "divergence", "preflight", "faults"),
            *("integrations.huggingface", "integrations.lightning"),
        )
    },
    "Operators": {"artesian.operators.reference": None},
    "Wire": {
        "artesian.wire.messages": wire_names,
        "artesian.wire.channel": wire_names,
        "artesian.wire.clock": wire_names,
        "artesian.wire.faults": None,
        "artesian.wire.environment": None,
    },
    "Formulas": {"artesian.formulas.flops": None, "artesian.formulas.goodput": None},
    "Catalogue": {"artesian.catalog.accelerators": None},
    "Nouns": {
        f"artesian.model.{name}": None
        for name in (
            *("units", "resources", "fleet", "job", "jobfile", "placement", "quota", "events", "plan"),
            *("capacity", "snapshot", "ledger", "errors"),
        )
    },
    "Seam of policies": {"artesian.policy.base": None, "artesian.policy.registry": None},
    "Seam of engines": {"artesian.engines.base": None, "artesian.engines.registry": None},
    "Brain and simulator": {
        "artesian.kernel.scheduler": None,
        "artesian.sim.jobs": None,
        "artesian.sim.run": None,
        "artesian.sim.goodput": None,
        "artesian.kernel.goodput": None,
    },
}
"""Modules by section, each with the names that are public; None: all that do not begin with ``_``."""


def main(argv: list[str]) -> int:
    """Write the pages, or compare them; 1 where they differ."""
    parser = argparse.ArgumentParser(description="Write the generated half of docs/reference.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page differs")
    is_check = parser.parse_args(argv).check
    differs = False
    for name, text in {"cli.md": cli_page(), "api.md": api_page()}.items():
        path = PAGES / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if before == text:
            continue
        differs = True
        if is_check:
            sys.stderr.writelines(
                difflib.unified_diff(
                    before.splitlines(True), text.splitlines(True), f"committed {name}", name
                )
            )
        else:
            path.write_text(text, encoding="utf-8")
    if is_check and differs:
        sys.stderr.write("error: docs/reference is behind the code\nhint: python scripts/reference.py\n")
        return 1
    return 0


# -- the commands -------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return the page of the commands."""
    context = click.Context(cli, info_name="artesian")
    parts = [MADE, "# Commands", inspect.cleandoc(cli.help or "")]
    parts.append(
        "Data goes to stdout, talk to stderr. `-o json` gives [the JSON forms](json.md). "
        "`-h` and `--help` work everywhere. [Exit codes](../guides/operate.md#exit-codes)."
    )
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is None:
            raise LookupError(name)
        parts.append(f"## artesian {name}")
        if name == "launch":
            parts += _launch_parts()
            continue
        parts += _command_parts(name, command)
        for below, subcommand in command.commands.items() if isinstance(command, click.Group) else ():
            parts.append(f"## artesian {name} {below}")
            parts += _command_parts(f"{name} {below}", subcommand)
    return "\n\n".join(parts) + "\n"


def _command_parts(name: str, command: click.Command) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    yield f"```text\nartesian {name} {usage}\n```"
    yield _prose(command.help or "")
    rows = [
        _option_row(parameter)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    if rows:
        yield _table(("option", "meaning"), rows)


def _launch_parts() -> Iterator[str]:
    parser = launch._parser()
    yield "```text\nartesian launch [OPTIONS] SCRIPT [ARGS]\n```"
    yield (
        "Takes torchrun's options and gives every worker torchrun's environment, so that a script written for "
        "torchrun runs unchanged. `python -m artesian.train.launch` is the same."
    )
    yield inspect.cleandoc(launch.__doc__ or "").split("\n\n", 2)[2]
    yield _table(
        ("option", "meaning"),
        [
            (
                _code(
                    action.option_strings[:1]
                    if action.nargs == 0
                    else [f"{action.option_strings[0]} {action.metavar}"]
                ),
                action.help or "",
            )
            for action in parser._actions
            if action.option_strings and action.dest != "help"
        ],
    )
    yield "Options also work with underscores for dashes, as torchrun spells some of them."


def _option_row(option: click.Option) -> tuple[str, str]:
    value = ""
    if not option.is_flag:
        kind = option.type
        value = " " + (
            "|".join(kind.choices) if isinstance(kind, click.Choice) else kind.name.upper().split()[0]
        )
    default = f" Default: `{option.default}`." if option.show_default else ""
    return _code([name + value for name in option.opts]), (option.help or "") + default


def _prose(text: str) -> str:
    """Return a command's help as Markdown; a paragraph after ``\\b`` is kept as it is."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            paragraphs.append(f"```text\n{paragraph.removeprefix(chr(8)).strip()}\n```")
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


# -- the modules --------------------------------------------------------------------------------------


def api_page() -> str:
    """Return the page of the public modules."""
    parts = [MADE, "# Python API"]
    parts.append(
        "What a script, a policy or an engine may rely on. Until version 1.0 it can still change; "
        "[the changelog](../../CHANGELOG.md) says what did."
    )
    parts.append("\n".join(f"- [{title}](#{title.lower().replace(' ', '-')})" for title in SECTIONS))
    for title, modules in SECTIONS.items():
        parts.append(f"## {title}")
        for module, names in modules.items():
            parts += _module_parts(module, names)
    return "\n\n".join(parts) + "\n"


def _module_parts(module: str, names: Collection[str] | None) -> Iterator[str]:
    path = SOURCES.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield f"### {module}"
    yield _markdown(ast.get_docstring(tree) or "")
    for index, node in enumerate(tree.body):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if not _is_public(node.name, names):
                    continue
                yield f"#### {node.name}"
                yield f"```python\n{_class_head(node) if isinstance(node, ast.ClassDef) else _signature(node)}\n```"
                yield _markdown(ast.get_docstring(node) or "")
                if isinstance(node, ast.ClassDef):
                    yield from _members(node)
            case ast.Assign() | ast.AnnAssign():
                name, text = _target(node), _docstring_after(tree.body, index)
                if name and _is_public(name, names) and text:
                    yield f"`{ast.unparse(node)}`\\\n{_markdown(text)}"


def _is_public(name: str, names: Collection[str] | None) -> bool:
    return not name.startswith("_") if names is None else name in names


def _class_head(node: ast.ClassDef) -> str:
    """Return the line that begins the class, and its fields."""
    names = [name for base in node.bases if (name := ast.unparse(base)) != "Struct"]  # how, not what it is
    bases = f"({', '.join(names)})" if names else ""
    fields = [
        f"    {ast.unparse(item)}"
        for item in node.body
        if isinstance(item, ast.AnnAssign | ast.Assign) and not _target(item).startswith("_")
    ]
    return "\n".join([f"class {node.name}{bases}", *fields])


def _members(node: ast.ClassDef) -> Iterator[str]:
    described = []
    for index, item in enumerate(node.body):
        if isinstance(item, ast.Assign | ast.AnnAssign):
            text = _docstring_after(node.body, index)
            if text and not _target(item).startswith("_"):
                described.append(f"- `{_target(item)}`: {_one_line(text)}")
        elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(item) or ""
            is_shown = not item.name.startswith("_") or item.name in ("__init__", "__enter__", "__exit__")
            if text and is_shown:
                head = item.name if _is_property(item) else _signature(item)
                first, _, rest = text.partition("\n\n")
                described.append(f"- `{head}`: {_one_line(first)}")
                described += [f"  {_one_line(part)}" for part in rest.split("\n\n") if part]
    if described:
        yield "\n\n".join(described)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a function's head, without what a caller does not write."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    arguments = ast.unparse(node.args)
    for bound in ("self", "cls"):
        arguments = "" if arguments == bound else arguments.removeprefix(f"{bound}, ")
    return f"{prefix}{node.name}({arguments}){returns}"


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in node.decorator_list
    )


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return target.id if isinstance(target, ast.Name) else "_"


def _docstring_after(body: list[ast.stmt], index: int) -> str:
    """Return the text that stands under an assignment; empty where there is none."""
    if index + 1 < len(body):
        match body[index + 1]:
            case ast.Expr(value=ast.Constant(value=str(text))):
                return inspect.cleandoc(text)
    return ""


def _markdown(text: str) -> str:
    """Return a docstring as Markdown: what follows ``::`` is code, and lists of modules keep their lines."""
    lines = []
    for line in text.splitlines():
        if line.strip() == "::":
            continue
        shown = line[:-1] if line.endswith("::") else line
        is_item = shown.startswith("``") and "``  " in shown
        lines.append(f"- {shown}" if is_item else shown)
    return "\n".join(lines).strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _code(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    shown = [head, ("---", "---"), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in shown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
