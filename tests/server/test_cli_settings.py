"""The policy that artesian.toml names is the one that decides, and the one that explains."""

from cli_harness import UNTIL_TOLD, Cli, the_whole_node, until


def test_the_named_policy_decides_and_explains(cli: Cli) -> None:
    cli.configure('policy = "easy"\n')
    first = cli.submit("first", UNTIL_TOLD, devices=the_whole_node(), estimated_duration="1h")
    cli.until_in(first, "running")
    second = cli.submit("second", devices=the_whole_node())
    until(lambda: "by the estimates of what runs" in (cli.json("why", second)["unblock"] or ""))
    assert "by policy easy" in cli.state.daemon_log.read_text()
    cli.tell()
    cli.until_in(second, "succeeded")


def test_settings_that_cannot_be_are_told_before_anything_is_done(cli: Cli) -> None:
    settings = cli.folder / "artesian.toml"
    settings.write_text('policy = "magic"\n')
    error, hint = cli("submit", cli.file(), code=1, ARTESIAN_CONFIG=str(settings)).stderr.splitlines()
    assert "policy 'magic' is not known" in error
    assert hint.startswith("hint: known policies: ")
    assert cli.json("jobs") == []
