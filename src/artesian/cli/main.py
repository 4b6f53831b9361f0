"""The command line: ``artesian COMMAND``. The only place that reads argv.

A command's module is imported when the command is called, so that ``artesian --help`` answers at once;
what the help says of each command stands here, in ``COMMANDS``.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from artesian import __version__
from artesian.cli import exits, streams
from artesian.model.errors import ArtesianError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("submit", "run", "Submit a job, follow it, and show where the compute went."),
    "submit": ("submit", "submit", "Submit a job and print its id."),
    "jobs": ("jobs", "jobs", "List jobs."),
    "show": ("jobs", "show", "Show a job: its attempts, its training, its recoveries."),
    "why": ("jobs", "why", "Say why a job is where it is, and what would unblock it."),
    "moves": ("moves", "moves", "List the moves of running jobs that would let waiting ones start."),
    "cancel": ("jobs", "cancel", "Stop a job."),
    "resize": ("jobs", "resize", "Change how many devices a job asks for."),
    "logs": ("logs", "logs", "Print what a job printed."),
    "waterfall": ("waterfall", "waterfall", "Show where device-seconds went, from nameplate to model FLOPs."),
    "simulate": ("simulate", "simulate", "Run jobs on a fleet in virtual time, under several policies."),
    "nodes": ("nodes", "nodes", "List the nodes; keep one out of use, and return it."),
    "census": ("census", "census", "Find and measure this machine's devices."),
    "serve": ("serve", "serve", "Serve the HTTP API to a team, and drive the scheduler."),
    "token": ("token", "token", "Make, list and revoke tokens for a server."),
    "launch": ("launch", "launch", "Start a gang of workers for a training script, as torchrun does."),
    "completion": ("completion", "completion", "Print the completion script of a shell."),
}
"""Commands by name: the module below ``artesian.cli``, the name in it, and the line in the help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of ``COMMANDS``."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"artesian.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that ``args`` begin with; a wrong name gets the nearest right one as a hint."""
        is_wrong = bool(args) and args[0] not in COMMANDS and not args[0].startswith("-")
        if is_wrong and not ctx.resilient_parsing:  # which it is while a shell completes
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return the commands and options that begin so, without importing them."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, (_, _, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="artesian")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Find, schedule and keep productive the AI compute you already own.

    Effective compute = nameplate × healthy × allocated × productive × MFU: every command measures or
    raises one of these factors.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(exits.USAGE)


def main() -> None:
    """Run the command line, and leave with its exit code."""
    try:
        sys.exit(_run())
    finally:
        # python -m dies of SIGINT, whatever code it was told, once a Ctrl-C has come up in source that was executed as
        # a string, as that of dataclasses and named tuples is when they are imported; the next such source makes it
        # forget.
        exec("")  # noqa: S102 - nothing of anybody's  # nosec B102


def _run() -> int:
    streams.mend()
    try:
        code = cli.main(prog_name="artesian", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        _complain(error.format_message(), _hint(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return exits.INTERRUPTED
    except ArtesianError as error:
        _complain(str(error), error.hint)
        return exits.FAILED
    except BrokenPipeError:  # whoever read our output has gone
        streams.silence()
        return exits.FAILED
    except OSError as error:  # such as a full disk below stdout
        said = error.strerror or str(error)
        _complain(f"{error.filename}: {said}" if error.filename else said, None)
        streams.silence()
        return exits.FAILED
    return code if isinstance(code, int) else 0


def _hint(error: click.ClickException) -> str | None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.ctx.command_path} --help"
    hint: str | None = getattr(error, "hint", None)
    return hint


def _complain(message: str, hint: str | None) -> None:
    colour = None if streams.has_colour() else False
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=colour)
    if hint:
        click.echo(f"{click.style('hint:', bold=True)} {hint}", err=True, color=colour)


if __name__ == "__main__":
    main()
