"""What somebody hostile may try: foreign pages, wrong hosts, bombs, huge bodies, paths, shells."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api_harness import JOB, Served, a_server
from artesian.cli.output import Failure
from artesian.cli.remote import token_of
from artesian.server.auth import OpenListener
from artesian.server.config import StateDir
from artesian.server.serve import Listener, Serving, authenticator
from artesian.server.submission import SUBMISSION_TYPE
from artesian.server.tokens import Role, TokenError, Tokens

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with a_server(tmp_path / "state") as served:
        yield served


def submit(served: Served, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.http.post("/api/v1/jobs", json=JOB, headers=names)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1.evil.example"]
)
def test_a_page_of_another_site_changes_nothing(served: Served, origin: str) -> None:
    assert submit(served, Origin=origin).status_code == 403
    assert served.http.get("/api/v1/jobs", headers={"Origin": origin}).json()["jobs"] == []


def test_a_page_of_our_own_may_and_one_that_the_browser_calls_foreign_may_not(served: Served) -> None:
    assert submit(served, Origin="http://127.0.0.1").status_code == 201
    assert submit(served, Sec_Fetch_Site="same-origin").status_code == 201
    assert submit(served, Sec_Fetch_Site="cross-site").status_code == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_form_of_another_site_cannot_submit(served: Served, kind: str) -> None:
    body = b'{"name": "evil", "devices": 1, "command": ["true"]}'
    answer = served.http.post("/api/v1/jobs", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"]
)
def test_a_name_that_is_not_ours_is_misdirected(served: Served, host: str) -> None:
    for path in ("/api/v1/jobs", "/healthz", "/metrics"):
        assert served.http.get(path, headers={"Host": host}).status_code == 421


def test_a_yaml_bomb_is_refused_before_it_goes_off(served: Served) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    deep = "name: " + "[" * 5000 + "]" * 5000
    wide = "env: {" + ", ".join(f"k{n}: v" for n in range(30_000)) + "}"
    for text in ("\n".join(lines), deep, wide, "x: !!python/object/apply:os.system ['true']"):
        begun_s = time.process_time()
        answer = served.http.post("/api/v1/jobs", content=text, headers=YAML)
        assert answer.status_code == 422
        assert time.process_time() - begun_s < 30
    json = '{"name": ' + "[" * 100_000 + "]" * 100_000 + "}"
    answer = served.http.post("/api/v1/jobs", content=json, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("path", "kind", "before"),
    [
        ("/api/v1/jobs", "application/json", '{"name": '),
        ("/api/v1/jobs", "application/yaml", "name: "),
        ("/api/v1/jobs", SUBMISSION_TYPE, '{"file": '),
        ("/api/v1/jobs", SUBMISSION_TYPE, '{"env": '),
        ("/api/v1/jobs/bulk", "application/json", '{"jobs": ['),
        ("/api/v1/jobs/bulk", "application/json", '{"env": '),
        ("/api/v1/jobs/bulk", "application/json", '{"jobs": [{"name": '),
        ("/api/v1/jobs/bulk", "application/json", ""),
    ],
)
def test_a_body_of_a_hundred_thousand_levels_is_refused(
    served: Served, path: str, kind: str, before: str
) -> None:
    for nested in ("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000):
        answer = served.http.post(path, content=before + nested, headers={"Content-Type": kind})
        assert answer.status_code == 422, answer.text


def test_an_oversized_body_is_refused_by_its_header_and_by_its_size(served: Served) -> None:
    large = b"x" * (2**21 + 1)
    assert served.http.post("/api/v1/jobs", content=large, headers=YAML).status_code == 413
    answer = served.http.post("/api/v1/jobs", content=iter([large[: 2**20]] * 3), headers=YAML)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    lying = {**YAML, "Content-Length": "ten"}
    assert served.http.post("/api/v1/jobs", content=b"x", headers=lying).status_code == 400


@pytest.mark.parametrize(
    "name",
    ["../tokens.sqlite3", "..%2F..%2Fetc%2Fpasswd", "%2e%2e", "..", "....//", "j1%00", "C:%5C", "~root", "*"],
)
def test_no_path_leads_out_of_the_folder_of_a_job(served: Served, name: str) -> None:
    for path in ("/jobs/{}/logs", "/jobs/{}/follow", "/jobs/{}", "/nodes/{}"):
        answer = served.http.get("/api/v1" + path.format(name))
        assert answer.status_code in (404, 422), (path, answer.text)
        assert "root:" not in answer.text
    assert served.http.delete(f"/api/v1/tokens/{name}").status_code in (404, 405)


def test_what_looks_like_a_shell_stays_data(served: Served, tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    evil = f"$(touch {mark}); `touch {mark}` | touch {mark} && touch {mark} #"
    job = {**JOB, "command": ["echo", evil], "env": {"A": evil}, "workdir": f"/tmp/{evil}", "team": evil}
    answer = served.http.post("/api/v1/jobs", json=job)
    assert answer.status_code == 201
    found = answer.json()
    assert found["command"] == ["echo", evil]
    assert found["team"] == evil
    for path in ("", f"/{found['id']}", f"/{found['id']}/why"):
        assert served.http.get(f"/api/v1/jobs{path}").status_code == 200
    assert served.http.get("/metrics").status_code == 200
    assert served.http.post("/api/v1/jobs", json={**JOB, "name": "$(id)"}).status_code == 422
    assert not mark.exists()


def test_every_answer_is_hardened_and_tells_no_version(served: Served) -> None:
    for path in ("/api/v1/jobs", "/api/v1/jobs/nope", "/nothing"):
        headers = served.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_a_bug_tells_nothing_of_itself(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("xyzzy")

    monkeypatch.setattr(type(served.app.state.service), "queue", fail)
    answer = served.http.get("/api/v1/queue")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "xyzzy" not in answer.text


# -- who may come in ----------------------------------------------------------------------------------


def test_beyond_loopback_the_server_does_not_start_without_a_token(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.create()
    open_ = Serving(state=state, user="amy", listener=Listener(host="0.0.0.0"))  # noqa: S104
    with pytest.raises(OpenListener, match="expected a token"):
        authenticator(open_)
    Tokens(state.tokens).create(user="amy", role=Role.ADMIN)
    assert authenticator(open_).embedded is None


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),  # noqa: S104
     ("::", False), ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_can_reach(host: str, is_loopback: bool) -> None:
    assert Listener(host=host).is_loopback is is_loopback


def test_on_loopback_the_first_token_closes_the_door(served: Served) -> None:
    assert served.http.get("/api/v1/queue").status_code == 200
    made = served.tokens.create(user="amy", role=Role.VIEWER)
    assert served.http.get("/api/v1/queue").status_code == 401
    served.tokens.revoke(made.token.id)
    assert served.http.get("/api/v1/queue").status_code == 401, "it does not open again"


def test_wrong_tokens_are_tried_a_few_times_only(served: Served) -> None:
    served.tokens.create(user="amy", role=Role.VIEWER)
    guesses = [f"artesian_{number:016x}_{'A' * 43}" for number in range(25)]
    codes = [
        served.http.get("/api/v1/queue", headers={"Authorization": f"Bearer {guess}"}).status_code
        for guess in guesses
    ]
    assert codes[0] == 401
    assert codes[-1] == 429


def test_a_token_is_kept_as_a_hash_in_a_file_of_its_users_own(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = Tokens(tmp_path / "tokens").create(user="amy", role=Role.MEMBER)
    finally:
        os.umask(before)
    secret = made.secret.rpartition("_")[2] if "_" not in made.secret[26:] else made.secret[26:]
    assert stat.S_IMODE((tmp_path / "tokens").stat().st_mode) == 0o600
    data = (tmp_path / "tokens").read_bytes()
    assert secret.encode() not in data
    assert b"$argon2id$" in data
    assert len(made.secret) == len("artesian_") + 16 + 1 + 43


@pytest.mark.parametrize("user", ["", "-x", "a b", "x" * 64, "a\nb", "a/b"])
def test_a_token_is_for_a_plain_name(tmp_path: Path, user: str) -> None:
    with pytest.raises(TokenError, match="expected up to 63"):
        Tokens(tmp_path / "tokens").create(user=user, role=Role.MEMBER)


def test_a_clients_token_file_must_be_its_users_own(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("artesian_x\n")
    path.chmod(0o640)
    with pytest.raises(Failure, match="expected mode 0600, got 0640"):
        token_of({"ARTESIAN_TOKEN_FILE": str(path)})
    path.chmod(0o600)
    assert token_of({"ARTESIAN_TOKEN_FILE": str(path)}) == "artesian_x"
    assert token_of({"ARTESIAN_TOKEN_FILE": str(path), "ARTESIAN_TOKEN": "other"}) == "other"
    (tmp_path / "artesian").mkdir()
    path.rename(tmp_path / "artesian" / "token")
    assert token_of({"XDG_CONFIG_HOME": str(tmp_path)}) == "artesian_x"
    assert token_of({"XDG_CONFIG_HOME": str(tmp_path / "none")}) is None
