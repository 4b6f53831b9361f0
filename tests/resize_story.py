"""A job that is resized while it runs, from its submit to its end: the same story to every control plane."""

from cli_harness import Cli, the_whole_node, until

SAVES = (
    "trap 'echo saved; exit 0' TERM; echo begun $ARTESIAN_EPOCH;"
    " while [ ! -e go ]; do sleep 0.01; done; echo done"
)


def resize_story(cli: Cli) -> None:
    """Have a job that holds the whole node go on with half a device; the same resize again changes nothing."""
    id_ = cli("submit", cli.file("shrinks", SAVES, devices=the_whole_node())).stdout.strip()
    until(lambda: "begun 1" in cli("logs", id_, code=None).stdout)
    assert "expected a count such as 8" in cli("resize", id_, "--devices", "many", code=1).stderr
    assert "cannot run here" in cli("resize", id_, "--devices", "1000000", code=1).stderr
    until(lambda: cli.json("show", id_)["state"] == "running")  # it may print before that is written down
    said = cli("resize", id_, "--devices", "0.5").stderr
    assert f"{id_} is being stopped, and goes on with " in said
    until(lambda: "begun 2" in cli("logs", id_, code=None).stdout)
    until(lambda: cli.json("show", id_)["state"] == "running")
    again = cli.json("resize", id_, "--devices", "0.5")
    assert (again["state"], len(again["devices"])) == ("running", 1)
    assert "holds as many, and runs on" in cli("resize", id_, "--devices", "0.5").stderr
    shown = cli.json("show", id_)
    first, second = shown["attempts"]
    assert (first["outcome"]["cause"], second["outcome"]) == ("resized", None)
    assert [(len(share["devices"]), share["milli"]) for share in second["placement"]] == [(1, 500)]
    assert cli("logs", id_, "--attempt", "1").stdout == "begun 1\nsaved\n"
    cli.tell()
    until(lambda: cli.json("show", id_)["state"] == "succeeded")
    assert f"job {id_} is over already" in cli("resize", id_, "--devices", "1", code=1).stderr
    assert "job 'nope' is not known here" in cli("resize", "nope", "--devices", "1", code=102).stderr
