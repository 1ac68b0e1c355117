"""``kvorum serve``: etcd's flags, the same as ``KVORUM_…`` variables and in a file.

A flag wins over the environment, that over the file, that over the default:

    KVORUM_CONFIG_FILE=n1.yaml KVORUM_LOG_LEVEL=debug kvorum serve --name n2

takes the name from the command line, the level from the environment and the rest from n1.yaml.
(With etcd a file makes it ignore the other two; here one setting can be changed for one run.)

Flags of etcd's that have no meaning here are accepted where they do no harm, so that unit files
and manifests work as they are, and refused where they ask for something that is not done. Flags
that would promise what is not there, such as TLS, are unknown.

Exit codes: 0 after a signal, 1 when the node cannot start or fails while it runs, 2 for flags
that are wrong.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from api import config_file
from api.config import (
    DEFAULT_CLIENT_URL,
    DEFAULT_PEER_URL,
    ConfigError,
    ServerConfig,
    initial_cluster_from,
    urls_from,
)
from api.config_file import Kind
from api.server import run_server

log = logging.getLogger("kvorum")
F = TypeVar("F", bound=Callable[..., Any])
_D = ServerConfig()


class _Milliseconds(click.ParamType):  # type: ignore[type-arg]  # older clicks take no argument
    """Milliseconds as a number, or a duration as Go writes them."""

    name = "milliseconds"
    _UNITS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}  # noqa: RUF012
    _PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if re.fullmatch(r"-?\d+", text):
            return int(text)
        if not text or self._PART.sub("", text):
            self.fail(f"{value!r} is no time: expected milliseconds, or such as 500ms, 30s, 10m.", param, ctx)
        return round(sum(float(number) * self._UNITS[unit] for number, unit in self._PART.findall(text)))


class _Urls(click.types.StringParamType):
    """Texts with commas between them; in a file it can be a list."""

    name = "list"


_MILLISECONDS, _URLS = _Milliseconds(), _Urls()
_LEVELS = {
    **{level: level for level in ("debug", "info", "warning", "error")},
    # etcd's names. What is fatal to it stops the node here, and is logged as an error.
    "warn": "warning",
    "panic": "error",
    "fatal": "error",
}

# Flags of etcd's that mean nothing here, with what they may be. Each is for a part that etcd has and
# Kvorum has not, or for the pace of one that does its work anyway: leaving it out breaks no promise.
_INERT: dict[str, click.ParamType[Any]] = {
    "--max-snapshots": click.INT,
    "--max-wals": click.INT,
    "--backend-batch-interval": _MILLISECONDS,
    "--backend-batch-limit": click.INT,
    "--backend-bbolt-freelist-type": click.Choice(["map", "array"]),
    "--bootstrap-defrag-threshold-megabytes": click.INT,
    "--compaction-batch-limit": click.INT,
    "--compaction-sleep-interval": _MILLISECONDS,
    "--raft-read-timeout": _MILLISECONDS,
    "--raft-write-timeout": _MILLISECONDS,
    "--grpc-keepalive-min-time": _MILLISECONDS,
    "--grpc-keepalive-interval": _MILLISECONDS,
    "--grpc-keepalive-timeout": _MILLISECONDS,
    "--max-concurrent-streams": click.INT,
    "--socket-reuse-address": click.BOOL,
    "--enable-v2": click.BOOL,
    "--v2-deprecation": click.Choice(["not-yet", "write-only", "write-only-drop-data", "gone"]),
    "--enable-grpc-gateway": click.BOOL,
    "--enable-pprof": click.BOOL,
    "--metrics": click.Choice(["basic", "extensive"]),
    "--logger": click.Choice(["zap"]),
    "--log-format": click.Choice(["console", "json"]),
    "--log-outputs": _URLS,
    "--warning-apply-duration": _MILLISECONDS,
    "--warning-unary-request-duration": _MILLISECONDS,
    "--experimental-enable-lease-checkpoint": click.BOOL,
    "--experimental-enable-lease-checkpoint-persist": click.BOOL,
    "--unsafe-no-fsync": click.BOOL,
    "--force-new-cluster": click.BOOL,
}
_OUTPUTS = {"default", "stderr", "stdout", "systemd/journal"}
# Of these, the values that ask for something that is not done, and why.
_REFUSED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("--unsafe-no-fsync", bool, "every write is made durable before it is answered, always"),
    ("--force-new-cluster", bool, "making a cluster of one out of a broken one is not there yet"),
    ("--enable-v2", bool, "there is no v2 API"),
    ("--enable-grpc-gateway", lambda on: not on, "the JSON API is how clients talk to Kvorum"),
    ("--log-format", lambda form: form == "json", "JSON logs are not there yet"),
    ("--log-outputs", lambda to: not set(urls_from(to)) <= _OUTPUTS, "the log goes to stderr only"),
)


def _option(flag: str, default: Any, help_text: str, **kwargs: Any) -> Callable[[F], F]:
    return click.option(
        flag, default=default, show_envvar=True, help=help_text, **{"show_default": True, **kwargs}
    )


def _switch(flag: str, default: bool | None, help_text: str, **kwargs: Any) -> Callable[[F], F]:
    """True or false as etcd takes it: ``--pre-vote``, ``--pre-vote=false``."""
    return _option(flag, default, help_text, type=click.BOOL, is_flag=False, flag_value="true", **kwargs)


def _inert_options(command: F) -> F:
    for flag, kind in _INERT.items():
        make = _switch if kind is click.BOOL else _option
        more = {} if kind is click.BOOL else {"type": kind}
        command = make(flag, None, "Has no effect here.", hidden=True, **more)(command)
    return command


def _is_switch(option: click.Parameter) -> bool:
    return option.type is click.BOOL


def _kind(option: click.Parameter) -> Kind:
    if option.type is _URLS:
        return Kind.LIST
    if option.type is _MILLISECONDS:
        return Kind.DURATION
    if option.type is click.INT:
        return Kind.INTEGER
    return Kind.BOOLEAN if _is_switch(option) else Kind.TEXT


def _key(option: click.Parameter) -> str:
    return option.opts[0].removeprefix("--")


def _take_file(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Make what is in the file the defaults of the other options."""
    if path is None:
        return None
    others = {_key(one): one for one in context.command.params if one is not option}
    try:
        settings = config_file.read(Path(path), {key: _kind(one) for key, one in others.items()})
        for key, text in settings.items():
            try:
                others[key].type.convert(text, None, context)
            except click.BadParameter as error:
                raise ConfigError(f"{path} has {key}: {error.message}") from None
    except ConfigError as error:
        raise click.UsageError(str(error), context) from None
    context.default_map = {str(others[key].name): text for key, text in settings.items()}
    return path


@click.command(
    context_settings={"auto_envvar_prefix": "KVORUM", "help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  kvorum serve --data-dir=/var/lib/kvorum
  kvorum serve --config-file=/etc/kvorum.yaml
  kvorum serve --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://10.0.0.1:2379""",
)
@click.option(
    "--config-file",
    is_eager=True,
    callback=_take_file,
    show_envvar=True,
    help="YAML file with settings: these flags' names without the dashes.",
)
@_option("--name", _D.name, "Human-readable name of this member.")
@_option("--data-dir", None, "Where this member keeps its data.", show_default="NAME.kvorum")
@_option("--listen-client-urls", DEFAULT_CLIENT_URL, "URLs to serve clients on.", type=_URLS)
@_option(
    "--advertise-client-urls",
    None,
    "URLs that clients are told to use.",
    type=_URLS,
    show_default="--listen-client-urls",
)
@_option(
    "--listen-peer-urls",
    None,
    "URLs to serve the other members on.",
    type=_URLS,
    show_default=f"none, or {DEFAULT_PEER_URL} with --initial-cluster",
)
@_option(
    "--initial-advertise-peer-urls",
    None,
    "This member's peer URLs; with the token they make its id.",
    type=_URLS,
    show_default=f"--listen-peer-urls, or {DEFAULT_PEER_URL}",
)
@_option(
    "--initial-cluster",
    None,
    "The members to start with: NAME=PEER-URL for each, with commas.",
    type=_URLS,
    show_default="this one alone",
)
@_option(
    "--initial-cluster-state",
    _D.initial_cluster_state,
    "Whether this member founds the cluster or joins one.",
    type=click.Choice(["new", "existing"]),
)
@_option("--initial-cluster-token", _D.initial_cluster_token, "Token that makes the cluster's ids unique.")
@_switch("--strict-reconfig-check", _D.strict_reconfig_check, "Refuse changes that would lose the quorum.")
@_option("--max-learners", _D.max_learners, "Learners allowed in the cluster.")
@_option("--heartbeat-interval", _D.heartbeat_interval, "Milliseconds between heartbeats.")
@_option("--election-timeout", _D.election_timeout, "Milliseconds without a leader before an election.")
@_switch("--pre-vote", _D.pre_vote, "Ask whether an election can be won before holding it.")
@_switch(
    "--initial-election-tick-advance",
    _D.initial_election_tick_advance,
    "Shorten the wait for the first election after a start.",
)
@_option("--snapshot-count", _D.snapshot_count, "Entries applied before older ones are dropped from the log.")
@_option(
    "--snapshot-catchup-entries",
    _D.snapshot_catchup_entries,
    "Of those, entries kept for members that are a little behind.",
)
@_option("--max-txn-ops", _D.max_txn_ops, "Operations allowed in one transaction.")
@_option("--max-request-bytes", _D.max_request_bytes, "Size of the largest request accepted.")
@_option(
    "--watch-progress-notify-interval",
    _D.watch_progress_notify_interval,
    "Time between progress notifications of idle watches.",
    type=_MILLISECONDS,
)
@_option(
    "--http-idle-timeout",
    _D.http_idle_timeout,
    "Time until a client without a request is hung up on.",
    type=_MILLISECONDS,
)
@_option(
    "--http-body-timeout",
    _D.http_body_timeout,
    "Time a request's body may stop coming in the middle.",
    type=_MILLISECONDS,
)
@_option("--log-level", _D.log_level, "How much to log.", type=click.Choice(list(_LEVELS)))
@_inert_options
@click.pass_context
def serve(context: click.Context, /, **_: Any) -> None:
    """Run a Kvorum server.

    Without flags it is a working single node on 127.0.0.1:2379 that keeps its data in
    ./default.kvorum. Every flag can also be given as an environment variable, or in a file.
    """
    config = configuration(context)
    if not __debug__:
        raise click.ClickException("Python's -O takes the invariants out of this program: run it without.")
    _set_up_logging(config.log_level)
    if inert := inert_flags(context):
        log.info("these flags of etcd's have no effect here: %s", ", ".join(inert))
    sys.exit(run_server(config))


def main(argv: list[str]) -> int:
    """Run ``kvorum serve`` with these arguments; returns the exit code."""
    try:
        serve.main(two_dashes(argv), prog_name="kvorum serve", standalone_mode=True)
    except SystemExit as finished:
        return int(finished.code or 0)
    return 0


def two_dashes(argv: list[str]) -> list[str]:
    """The arguments with two dashes where flags have one, ``-name n1``, as Go programs take them."""
    waiting = {flag for option in serve.params if not _is_switch(option) for flag in option.opts}
    changed: list[str] = []
    for number, one in enumerate(argv):
        if one == "--":
            return changed + argv[number:]
        is_value = bool(changed) and changed[-1] in waiting
        changed.append(f"-{one}" if not is_value and re.match(r"-[a-z][a-z0-9-]", one) else one)
    return changed


def configuration(context: click.Context) -> ServerConfig:
    """The settings that a parsed command line comes to. Raises click.UsageError."""
    try:
        for flag, is_refused, why in _REFUSED:
            value = context.params[_name(flag)]
            if value is not None and is_refused(value):
                shown = str(value).lower() if isinstance(value, bool) else value
                raise ConfigError(f"{flag} is {shown}, which Kvorum refuses: {why}.")
        return _config_from(context.params)
    except ConfigError as error:
        raise click.UsageError(f"{error}{_origin(context, str(error))}", context) from None


def inert_flags(context: click.Context) -> list[str]:
    """The flags that were given, by whatever way, and do nothing."""
    return [flag for flag in _INERT if context.params[_name(flag)] is not None]


def _config_from(given: dict[str, Any]) -> ServerConfig:
    """Flags with None for what is not given; some defaults follow from other settings."""
    lists = {
        name: _urls(given, name)
        for name in (
            "listen_client_urls",
            "advertise_client_urls",
            "listen_peer_urls",
            "initial_advertise_peer_urls",
        )
    }
    cluster = given["initial_cluster"]
    # A node that is alone needs no port for peers.
    listen_peer = lists["listen_peer_urls"] or (() if cluster is None else (DEFAULT_PEER_URL,))
    ours = {name: value for name, value in given.items() if name in ServerConfig.__dataclass_fields__}
    return ServerConfig(
        **{
            **ours,
            "data_dir": Path(given["data_dir"] or f"{given['name']}.kvorum"),
            "listen_client_urls": lists["listen_client_urls"],
            "advertise_client_urls": lists["advertise_client_urls"] or lists["listen_client_urls"],
            "listen_peer_urls": listen_peer,
            "initial_advertise_peer_urls": (
                lists["initial_advertise_peer_urls"] or listen_peer or (DEFAULT_PEER_URL,)
            ),
            "initial_cluster": () if cluster is None else initial_cluster_from(cluster),
            "log_level": _LEVELS[given["log_level"]],
        }
    )


def _urls(given: dict[str, Any], name: str) -> tuple[str, ...] | None:
    value = given[name]
    if value is None:
        return None
    if not (urls := urls_from(value)):
        example = DEFAULT_PEER_URL if "peer" in name else DEFAULT_CLIENT_URL
        flag = "--" + name.replace("_", "-")
        raise ConfigError(f"{flag} is empty: give at least one URL such as {example}.")
    return urls


def _origin(context: click.Context, message: str) -> str:
    """Where the flag that the message begins with was set, if not on the command line."""
    name = _name(message.split()[0])
    match context.get_parameter_source(name):
        case ParameterSource.DEFAULT_MAP:
            return f" It is set in {context.params['config_file']}."
        case ParameterSource.ENVIRONMENT:
            return f" It is set by the variable KVORUM_{name.upper()}."
        case _:
            return ""


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if level != "debug":
        # It reports every malformed request with a traceback: anyone could fill the disk with those.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
