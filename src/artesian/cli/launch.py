"""``artesian launch``: the launch agent of ``artesian.train``, with its own options."""

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def launch(arguments: tuple[str, ...]) -> int:
    """Start the workers of a training script on this node, as torchrun does."""
    from artesian.train.launch import main

    return main(arguments)
