"""``artesian nodes``, ``nodes exclude`` and ``nodes return``."""

from collections.abc import Iterable

import click
from rich.table import Table
from rich.text import Text

from artesian.cli.output import output_option, plain, print_json, stdout, visible
from artesian.cli.plane import Plane
from artesian.cli.state import control_plane
from artesian.model.errors import ArtesianError, UnknownNode
from artesian.model.units import format_flops
from artesian.model.views import NodeView


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    del ctx, param
    try:
        with control_plane() as plane:
            return [node.id for node in plane.iter_nodes() if node.id.startswith(incomplete)]
    except (ArtesianError, click.ClickException):
        return []


_nodes_argument = click.argument(
    "names", metavar="NODE...", nargs=-1, required=True, shell_complete=_complete
)


@click.group(invoke_without_command=True)
@click.option("--pool", help="Only the nodes of this pool.")
@click.option("--center", help="Only the nodes of this center.")
@output_option
@click.pass_context
def nodes(context: click.Context, pool: str | None, center: str | None, output: str) -> None:
    """List the nodes: their devices, what of them is held, and which of them are out of use."""
    if context.invoked_subcommand is not None:
        return
    with control_plane() as plane:
        found = list(plane.iter_nodes(pool=pool, center=center))
    if output == "json":
        print_json([plain(node) | {"state": node.state} for node in found])
        return
    if not found:
        wanted = {"pool": pool, "center": center}
        where = "".join(f" in {what} {name}" for what, name in wanted.items() if name is not None)
        click.echo(f"no node is known{where}: the engines have offered none", err=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    has_centers = len({node.center for node in found}) > 1
    for name in ("node", *["center"] * has_centers, "pool", "model", "devices", "held", "peak", "state"):
        table.add_column(name, justify="right" if name in ("devices", "held", "peak") else "left")
    for node in found:
        peak = "unknown" if node.peak_flops is None else format_flops(node.peak_flops)
        where_it_is = (node.center, node.pool) if has_centers else (node.pool,)
        has = (node.accelerator, str(node.devices), f"{node.held:g}", peak)
        table.add_row(*map(Text, (node.id, *where_it_is, *has, _state(node))))
    stdout(is_wide=True).print(table)


def _check_known(plane: Plane, names: Iterable[str]) -> None:
    """Raise UnknownNode before anything is done, where one of the names is wrong."""
    known = {node.id for node in plane.iter_nodes()}
    for name in names:
        if name not in known:
            raise UnknownNode.among(name, known)


def _state(node: NodeView) -> str:
    if node.excluded is None:
        return node.state
    by = f" ({node.excluded_by})" if node.excluded_by else ""
    gone = "" if node.is_up else "gone; "
    return f"{gone}excluded: {visible(node.excluded)}{by}"


@nodes.command()
@_nodes_argument
@click.option("--reason", required=True, help="What is wrong with it: everybody is shown this.")
@click.option(
    "--stop", is_flag=True, help="Also stop what runs there: it gets its grace, and goes on elsewhere."
)
@output_option
def exclude(names: tuple[str, ...], reason: str, stop: bool, output: str) -> None:
    """Have nothing more start on each NODE. What runs there goes on, unless --stop is given.

    Devices of an excluded node that nothing holds are lost in the healthy stage of the waterfall.
    """
    with control_plane() as plane:
        _check_known(plane, names)
        found = [plane.exclude(name, reason=reason, is_stopping=stop) for name in names]
    if output == "json":
        print_json([plain(node) | {"state": node.state} for node in found])
        return
    for node in found:
        runs = ", ".join(node.jobs)
        verb = "is being stopped" if stop else "goes on there"
        held = f"; {runs} {verb}" if runs else ""
        click.echo(f"{node.id} is excluded{held}", err=True)


@nodes.command(name="return")
@_nodes_argument
@output_option
def return_(names: tuple[str, ...], output: str) -> None:
    """Have each NODE, which was excluded, used again."""
    with control_plane() as plane:
        _check_known(plane, names)
        found = [plane.return_node(name) for name in names]
    if output == "json":
        print_json([plain(node) | {"state": node.state} for node in found])
        return
    for node in found:
        click.echo(f"{node.id} is in use again", err=True)
