"""``artesian completion SHELL``."""

import click
from click.shell_completion import get_completion_class

from artesian.cli.main import cli

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the script that teaches SHELL to complete commands, options and job ids.

    \b
    bash:  eval "$(artesian completion bash)"       in ~/.bashrc
    zsh:   eval "$(artesian completion zsh)"        in ~/.zshrc
    fish:  artesian completion fish > ~/.config/fish/completions/artesian.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "artesian", "_ARTESIAN_COMPLETE").source())
