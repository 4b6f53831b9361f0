"""``artesian token create``, ``list`` and ``revoke``."""

import time

import click
from rich.table import Table

from artesian.cli.output import output_option, plain, print_json, stdout
from artesian.cli.state import token_office
from artesian.cli.waterfall import Duration
from artesian.model.units import format_duration
from artesian.model.views import TokenView

_ROLES = ("viewer", "member", "operator", "admin")


@click.group()
def token() -> None:
    """Make, list and revoke the tokens by which a server knows who calls."""


@token.command()
@click.option("--user", required=True, help="Whose token it is: jobs are submitted in this name.")
@click.option(
    "--role", type=click.Choice(_ROLES), default="member", show_default=True, help="What it may do."
)
@click.option("--team", help="The only team whose jobs it sees and submits; every team's unless given.")
@click.option("--lasts", type=Duration(), help="How long it is good: 30d. Until it is revoked unless given.")
@click.option("--note", default="", help="What it is for.")
@output_option
def create(user: str, role: str, team: str | None, lasts: float | None, note: str, output: str) -> None:
    """Make a token, and print it: this once, it is kept nowhere.

    Put it into ARTESIAN_TOKEN, or into a file of mode 0600 that ARTESIAN_TOKEN_FILE names.
    """
    with token_office() as office:
        made = office.create_token(user=user, role=role, team=team, lasts_s=lasts, note=note)
    if output == "json":
        print_json(plain(made))
    else:
        click.echo(made.secret)
        click.echo(f"token {made.token.id} of {user}, {role}; it is not shown again", err=True)


@token.command(name="list")
@output_option
def list_(output: str) -> None:
    """List all tokens ever made, without their secrets."""
    with token_office() as office:
        found = office.tokens()
    if output == "json":
        print_json([plain(one) for one in found])
        return
    if not found:
        click.echo("no tokens yet: artesian token create makes one", err=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("token", "user", "role", "team", "age", "state", "note"):
        table.add_column(name)
    for one in found:
        age = format_duration(max(0.0, time.time() - one.created_s))
        table.add_row(one.id, one.user, one.role, one.team or "any", age, _state(one), one.note)
    stdout(is_wide=True).print(table)


def _state(one: TokenView) -> str:
    if one.revoked_s is not None:
        return "revoked"
    if one.expires_s is None:
        return "good"
    left_s = one.expires_s - time.time()
    return "expired" if left_s <= 0 else f"good for {format_duration(left_s)}"


@token.command()
@click.argument("id", metavar="TOKEN")
def revoke(id: str) -> None:
    """Make TOKEN, named by its id, worthless from now on."""
    with token_office() as office:
        revoked = office.revoke_token(id)
    click.echo(f"token {revoked.id} of {revoked.user} is revoked", err=True)
