"""``artesian launch``: the launch agent of ``artesian.train``, with its own options."""

import click


class _Unparsed(click.Command):
    """A command whose words are all its own: click would take the first ``--`` out of the script's arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand all of them on."""
        ctx.params["arguments"] = tuple(args)
        return []


@click.command(cls=_Unparsed, add_help_option=False)
def launch(arguments: tuple[str, ...]) -> int:
    """Start the workers of a training script on this node, as torchrun does."""
    from artesian.train.launch import main

    return main(arguments)
