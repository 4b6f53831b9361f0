"""``artesian serve``."""

from pathlib import Path

import click

from artesian.cli.state import user_name
from artesian.server.config import StateDir
from artesian.server.settings import Settings
from artesian.wire import environment as names


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8230,
    show_default=True,
    help="Port; 0: any that is free.",
)
@click.option(
    "--allow-host", multiple=True, help="Another name by which the server is called. May be repeated."
)
@click.option(
    "--database",
    envvar=names.DATABASE,
    help="URL of a PostgreSQL database that several servers share; better in ARTESIAN_DATABASE, where it has a password.",
)
@click.option("--certificate", type=click.Path(path_type=Path), help="TLS certificate (PEM), with --key.")
@click.option("--key", type=click.Path(path_type=Path), help="Its private key.")
@click.option("--no-driver", is_flag=True, help="Only serve: another process drives the scheduler.")
@click.option("--no-dashboard", is_flag=True, help="Only serve the API: no pages for a browser under /ui.")
@click.option("--log-json", is_flag=True, help="Log one JSON object a line.")
def serve(
    host: str,
    port: int,
    allow_host: tuple[str, ...],
    database: str | None,
    certificate: Path | None,
    key: Path | None,
    no_driver: bool,
    no_dashboard: bool,
    log_json: bool,
) -> None:
    """Serve the HTTP API and the dashboard (/ui), and drive the scheduler, until told to stop. Attempts run on.

    On loopback everybody is you until the first token is made. Elsewhere the server asks for tokens, and does
    not start without one: artesian token create.
    """
    from artesian.server.oidc_settings import OidcSettings
    from artesian.server.serve import Listener, Serving, run

    if (certificate is None) is not (key is None):
        raise click.UsageError("--certificate and --key belong together")
    listener = Listener(
        host=host,
        port=port,
        allowed_hosts=allow_host,
        certificate=None if certificate is None else str(certificate),
        key=None if key is None else str(key),
    )
    settings = Settings.from_env()
    serving = Serving(
        state=StateDir.from_env(),
        user=user_name(),
        listener=listener,
        rules=settings.rules,
        oidc=OidcSettings.of(settings.oidc) if settings.oidc else None,
        is_log_json=log_json,
        database=database,
        has_driver=not no_driver,
        has_dashboard=not no_dashboard,
    )
    run(serving, click.echo)
