"""``artesian waterfall``."""

from pathlib import Path

import click

from artesian.cli.output import output_option, print_json, stdout
from artesian.cli.state import complete_job, control_plane, known_job
from artesian.model.errors import UnitError
from artesian.model.units import parse_duration_s


class Duration(click.ParamType[float]):
    """A duration such as ``24h``, as seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        try:
            return parse_duration_s(str(value))
        except UnitError as error:
            self.fail(f"{error}; {error.hint}", param, ctx)


@click.command()
@click.option(
    "--job", shell_complete=complete_job, help="Only while this job was there, from its submit to its end."
)
@click.option("--since", type=Duration(), help="Only the last such while: 30m, 24h, 7d.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it into FILE (.svg or .png).")
@output_option
def waterfall(job: str | None, since: float | None, plot: Path | None, output: str) -> None:
    """Show where device-seconds went, from nameplate to model FLOPs, and what each loss was due to.

    Without options: since the control plane first saw this machine. A figure that was not measured is
    shown as unknown.
    """
    from artesian.cli import picture
    from artesian.cli import plot as drawing

    if job is not None and since is not None:
        raise click.UsageError("--job and --since are two ways to choose a window: leave one out")
    if plot is not None:
        drawing.check_path(plot)
    with control_plane() as plane, known_job():
        found = plane.waterfall(job=job, since_s=since)
    if output == "json":
        print_json(found.to_dict())
    elif found.nameplate_us == 0:
        click.echo("nothing is known yet: artesian run FILE runs a first job", err=True)
    else:
        stdout().print(picture.WaterfallPicture(found))
    if plot is not None:
        drawing.plot(found, plot)  # last: if it fails, the figures are there
