"""Where settings come from: flags, environment, file; and etcd's flags that do nothing here."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest

from api.config import InitialMember, ServerConfig
from api.flags import configuration, inert_flags, serve, two_dashes

ROOT = Path(__file__).resolve().parent.parent.parent
PEER = "http://localhost:2380"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("KVORUM_"):
            monkeypatch.delenv(name)


def parsed(*argv: str) -> click.Context:
    return serve.make_context("kvorum serve", two_dashes(list(argv)))


def config(*argv: str) -> ServerConfig:
    return configuration(parsed(*argv))


def refusal(*argv: str) -> str:
    with pytest.raises(click.UsageError) as refused:
        config(*argv)
    assert refused.value.exit_code == 2
    return refused.value.format_message()


def from_file(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "kvorum.yaml"
    path.write_text(text)
    return ["--config-file", str(path)]


def test_no_flags_are_the_defaults() -> None:
    """A command line without flags is the default configuration."""
    assert config() == ServerConfig()


def test_flag_then_environment_then_file_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source gives way to the one before it."""
    file = from_file(tmp_path, "name: file\nmax-txn-ops: 3\nmax-learners: 3\n")
    monkeypatch.setenv("KVORUM_NAME", "environment")
    monkeypatch.setenv("KVORUM_MAX_TXN_OPS", "2")
    monkeypatch.setenv("KVORUM_MAX_REQUEST_BYTES", "")
    ours = config(*file, "--name", "flag")
    assert (ours.name, ours.max_txn_ops, ours.max_learners) == ("flag", 2, 3)
    assert ours.max_request_bytes == ServerConfig().max_request_bytes


def test_the_file_is_found_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVORUM_CONFIG_FILE is --config-file."""
    monkeypatch.setenv("KVORUM_CONFIG_FILE", from_file(tmp_path, "name: n7")[1])
    assert config().name == "n7"


def test_every_setting_has_a_flag_a_variable_and_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three ways lead to the same configuration."""
    values = {
        "name": "n1",
        "data-dir": "/d",
        "listen-client-urls": "http://0.0.0.0:1,http://[::]:1",
        "advertise-client-urls": "http://a:1",
        "listen-peer-urls": "http://0.0.0.0:2",
        "initial-advertise-peer-urls": "http://a:2",
        "initial-cluster": "n1=http://a:2,n2=http://b:2",
        "initial-cluster-state": "existing",
        "initial-cluster-token": "t",
        "strict-reconfig-check": "false",
        "max-learners": "2",
        "heartbeat-interval": "10",
        "election-timeout": "50",
        "pre-vote": "false",
        "initial-election-tick-advance": "false",
        "snapshot-count": "11",
        "snapshot-catchup-entries": "12",
        "max-txn-ops": "13",
        "max-request-bytes": "14",
        "watch-progress-notify-interval": "150",
        "http-idle-timeout": "16",
        "http-body-timeout": "17",
        "log-level": "error",
    }
    assert {key.replace("-", "_") for key in values} == set(ServerConfig.__dataclass_fields__)
    by_flags = config(*(f"--{key}={value}" for key, value in values.items()))
    default = ServerConfig()
    assert not [
        name
        for name in ServerConfig.__dataclass_fields__
        if getattr(by_flags, name) == getattr(default, name)
    ]
    lines = (f"{key}: {value}\n" for key, value in values.items())
    assert config(*from_file(tmp_path, "".join(lines))) == by_flags
    for key, value in values.items():
        monkeypatch.setenv(f"KVORUM_{key.upper().replace('-', '_')}", value)
    assert config() == by_flags


def test_lists_in_a_file(tmp_path: Path) -> None:
    """A YAML list is the same as a text with commas."""
    cluster = "n1=http://a:1,n1=http://b:1,n2=http://c:1"
    start = "name: n1\nlisten-peer-urls: [http://a:1, http://b:1]\ninitial-cluster:"
    as_list = config(*from_file(tmp_path, start + "".join(f"\n  - {one}" for one in cluster.split(","))))
    assert as_list == config(*from_file(tmp_path, f"{start} {cluster}"))
    assert as_list.initial_advertise_peer_urls == ("http://a:1", "http://b:1")
    assert [one.name for one in as_list.founders] == ["n1", "n2"]


def test_a_key_without_a_value_is_not_there(tmp_path: Path) -> None:
    """etcd's sample file has many of these."""
    assert config(*from_file(tmp_path, "data-dir:\ninitial-cluster:\n")) == ServerConfig()
    assert config(*from_file(tmp_path, "# nothing\n")) == ServerConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name: n1\nlisten_peer_urls: x\n",
            "FILE line 2 has the unknown key 'listen_peer_urls' (is listen-peer-urls meant?): expected the"
            " name of a flag of kvorum serve, without its dashes.",
        ),
        ("cert-file: x\n", "FILE line 1 has the unknown key 'cert-file'"),
        ("config-file: x\n", "FILE line 1 has the unknown key 'config-file'"),
        ("7: x\n", "FILE line 1 has the unknown key 7"),
        (
            "name: 5\n",
            "FILE line 1 has name: 5, expected a text (in quotes where it looks like something else).",
        ),
        ("\nmax-txn-ops: many\n", 'FILE line 2 has max-txn-ops: "many", expected a whole number.'),
        ("max-txn-ops: true\n", "FILE line 1 has max-txn-ops: true, expected a whole number."),
        ("max-txn-ops: [1]\n", "FILE line 1 has max-txn-ops: [1], expected a whole number."),
        ("pre-vote: 1\n", "FILE line 1 has pre-vote: 1, expected true or false."),
        (
            "http-idle-timeout: [1]\n",
            "FILE line 1 has http-idle-timeout: [1], expected milliseconds, or a text such as 10m.",
        ),
        (
            "listen-peer-urls: {a: http://a:1}\n",
            'FILE line 1 has listen-peer-urls: {"a": "http://a:1"}, expected a text, or a list of texts.',
        ),
        ("http-idle-timeout: 10 minutes\n", "FILE has http-idle-timeout: '10 minutes' is no time"),
        ("log-level: loud\n", "FILE has log-level: 'loud' is not one of"),
        ("name: n1\nname: n2\n", "FILE has name twice, in lines 1 and 2."),
        ("- name\n", 'FILE has ["name"]: expected lines of the form NAME: VALUE.'),
        ("just text\n", 'FILE has "just text": expected lines of the form NAME: VALUE.'),
        ("name: n1\n  pre-vote: x: y\n", "FILE line 2 is no YAML: mapping values are not allowed here."),
        ("name: [n1\n", "FILE line 2 is no YAML: expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "FILE line 2 is no YAML: but found another document."),
        ("name: 2020-13-45\n", "FILE is no YAML: month must be in 1..12"),
        ("name: \0\n", "FILE is no YAML: unacceptable character"),
        ("name: " + "[" * 5000, "FILE is no YAML: maximum recursion depth exceeded"),
        ("max-txn-ops: 0\n", "--max-txn-ops is 0: expected 1 or more. It is set in FILE."),
        ("initial-cluster: n1\n", "--initial-cluster has 'n1': expected NAME=URL"),
        ("unsafe-no-fsync: true\n", "--unsafe-no-fsync is true, which Kvorum refuses"),
    ],
)
def test_what_is_wrong_with_a_file(text: str, said: str, tmp_path: Path) -> None:
    """The file is named, with the line and the key, and what was expected."""
    file = from_file(tmp_path, text)
    assert refusal(*file).startswith(said.replace("FILE", file[1]))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory and a binary are refused by name."""
    missing, binary = tmp_path / "missing", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert refusal(f"--config-file={missing}") == (
        f"--config-file {missing} cannot be read: No such file or directory."
    )
    assert refusal(f"--config-file={tmp_path}") == f"--config-file {tmp_path} cannot be read: Is a directory."
    assert refusal(f"--config-file={binary}") == f"--config-file {binary} is no text in UTF-8."


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value from the environment that is refused is told with its variable."""
    monkeypatch.setenv("KVORUM_MAX_TXN_OPS", "0")
    assert refusal() == (
        "--max-txn-ops is 0: expected 1 or more. It is set by the variable KVORUM_MAX_TXN_OPS."
    )
    assert config("--max-txn-ops=1").max_txn_ops == 1


def test_a_node_that_is_alone_opens_no_peer_port() -> None:
    """Without --initial-cluster and --listen-peer-urls there are no peers, whatever is advertised."""
    assert config("--initial-advertise-peer-urls=http://a:1").listen_peer_urls == ()
    assert config("--listen-peer-urls=http://a:1").listen_peer_urls == ("http://a:1",)
    assert config(f"--initial-cluster=default={PEER}").listen_peer_urls == (PEER,)
    assert config(f"--initial-cluster=default={PEER}").founders == (InitialMember("default", (PEER,)),)


def test_what_is_advertised_follows_what_is_listened_on() -> None:
    """Advertised URLs default to the listen URLs, unless those are wildcards."""
    assert config("--listen-peer-urls=http://a:1").initial_advertise_peer_urls == ("http://a:1",)
    assert config("--listen-client-urls=http://a:1").advertise_client_urls == ("http://a:1",)
    assert refusal("--listen-peer-urls=http://0.0.0.0:1").startswith(
        "--initial-advertise-peer-urls has 'http://0.0.0.0:1', which nobody can connect to"
    )
    for wildcard in ("http://0.0.0.0:1", "http://[::]:1"):
        assert refusal(f"--listen-client-urls={wildcard}").startswith(
            f"--advertise-client-urls has '{wildcard}', which nobody can connect to"
        )
        ours = config(f"--listen-client-urls={wildcard}", "--advertise-client-urls=http://a:1")
        assert ours.listen_client_urls == (wildcard,)


@pytest.mark.parametrize(
    "flag", ["--listen-client-urls", "--advertise-client-urls", "--listen-peer-urls", "--initial-cluster"]
)
def test_a_list_that_came_out_empty_is_refused(flag: str) -> None:
    """``--initial-cluster "$CLUSTER"`` with an empty variable does not found a cluster of one."""
    assert refusal(flag, "").startswith(f"{flag} is empty: ")


def test_switches() -> None:
    """True and false as etcd takes them."""
    assert config("--pre-vote", "--name", "n1").pre_vote
    assert not config("--pre-vote=false").pre_vote
    assert not config("--pre-vote=F", "--strict-reconfig-check").pre_vote
    assert "'maybe' is not a valid boolean" in refusal("--pre-vote=maybe")


def test_one_dash_is_enough() -> None:
    """Flags with one dash are those with two; values and unknown flags stay what they are."""
    ours = config("-name", "-pre-vote", "-pre-vote", "-data-dir=-x", "-max-learners", "0")
    assert (ours.name, ours.pre_vote, str(ours.data_dir)) == ("-pre-vote", True, "-x")
    assert refusal("-cert-file", "x").startswith("No such option '--cert-file'.")
    assert refusal("--", "-name") == "Got unexpected extra argument (-name)"


@pytest.mark.parametrize("flag", ["--cert-file", "--quota-backend-bytes", "--auth-token", "--wal-dir"])
def test_what_is_not_there_yet_is_unknown(flag: str) -> None:
    """A flag that would promise something is not passed over."""
    assert f"No such option '{flag}'." in refusal(flag, "1")


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("5", 5), ("5s", 5000), ("10m", 600_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("100000us", 100)],
)
def test_times(text: str, milliseconds: int) -> None:
    """Milliseconds, or durations as Go writes them."""
    assert config("--http-idle-timeout", text).http_idle_timeout == milliseconds


@pytest.mark.parametrize(("given", "level"), [("warn", "warning"), ("fatal", "error"), ("debug", "debug")])
def test_log_levels(given: str, level: str) -> None:
    """etcd's names of the levels are taken for ours."""
    assert config("--log-level", given).log_level == level


def test_flags_without_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd's flags that mean nothing here change nothing, and are listed from wherever they came."""
    monkeypatch.setenv("KVORUM_MAX_WALS", "3")
    context = parsed(
        *from_file(tmp_path, "logger: zap\nbackend-batch-interval: 0\nforce-new-cluster: false\n"),
        "--enable-v2=false",
        "--enable-grpc-gateway",
        "--grpc-keepalive-interval=2h",
        "--log-outputs=default,stderr",
    )
    assert configuration(context) == ServerConfig()
    assert set(inert_flags(context)) == {
        "--max-wals",
        "--logger",
        "--backend-batch-interval",
        "--force-new-cluster",
        "--enable-v2",
        "--enable-grpc-gateway",
        "--grpc-keepalive-interval",
        "--log-outputs",
    }


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (
            "--unsafe-no-fsync",
            "--unsafe-no-fsync is true, which Kvorum refuses: every write is made durable before it is"
            " answered, always.",
        ),
        ("--force-new-cluster", "making a cluster of one out of a broken one is not there yet."),
        ("--enable-v2=true", "there is no v2 API."),
        ("--enable-grpc-gateway=false", "the JSON API is how clients talk to Kvorum."),
        ("--log-format=json", "--log-format is json, which Kvorum refuses: JSON logs are not there yet."),
        ("--log-outputs=/var/log/x", "the log goes to stderr only."),
        ("--max-wals=few", "'few' is not a valid integer"),
        ("--logger=capnslog", "'capnslog' is not 'zap'"),
    ],
)
def test_what_asks_for_something_that_is_not_done(flag: str, said: str) -> None:
    """A flag without effect is still checked, and refused where passing it over would do harm."""
    assert said in refusal(flag)


def test_every_flag_is_documented() -> None:
    """docs/operating.md names each flag of ``kvorum serve``, and no others in its tables."""
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = [line for line in text.split("## The data directory")[0].splitlines() if line.startswith("| `--")]
    documented = {flag for row in rows for flag in re.findall(r"`(--[a-z0-9-]+)`", row.split("|")[1])}
    assert documented == {flag for option in serve.params for flag in option.opts}
