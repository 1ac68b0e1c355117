"""etcdctl's words: whatever its help names, we have, but for what is listed here with its reason."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import click
import pytest

from kvorum.cli import main
from kvorum.cli.go_switches import GoSwitches
from tests.common.servers import etcd_binary

COMMANDS_LEFT_OUT = {
    "snapshot restore": "makes the files of an etcd member; etcdctl itself sends one to etcdutl for that",
    "snapshot status": "reads etcd's own database file; etcdctl itself sends one to etcdutl for that",
}
FLAGS_LEFT_OUT = {
    ("defrag", "--data-dir"): "works on the files of an etcd that does not run, and on no server",
}
FORMATS_LEFT_OUT = {
    "protobuf": "the messages of gRPC; what we ask, and what asks us, speaks JSON",
}


class Flag(NamedTuple):
    """``default`` in Go's notation, without quotes and brackets."""

    is_switch: bool
    default: str


class Help(NamedTuple):
    commands: list[str]
    flags: dict[str, Flag]
    global_flags: dict[str, Flag]
    text: str


def etcdctl_help(path: str) -> Help:
    words = [str(etcd_binary("etcdctl")), *path.split(), "--help"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    sections = dict(re.findall(r"^([A-Z ]+):\n(.*?)(?=^[A-Z ]+:\n|\Z)", text, re.M | re.S))
    commands = re.findall(r"^\t(\S+(?: \S+)?)\t", sections.get("COMMANDS", ""), re.M)
    flags, inherited = (flags_of(sections.get(name, "")) for name in ("OPTIONS", "GLOBAL OPTIONS"))
    return Help(commands, flags, inherited, text)


def flags_of(section: str) -> dict[str, Flag]:
    found = {}
    line = re.compile(r"^ +(?:(-\w), |)(--[\w-]+)(\[=\w+\]|=\S*)", re.M)
    for short, name, default in line.findall(section):
        flag = Flag(default.startswith("["), default.strip('[]="'))
        found.update({spelling: flag for spelling in (short, name) if spelling})
    return found


@pytest.fixture(scope="module")
def etcdctl() -> dict[str, Help]:
    """The help of every command and group, by its words; of the whole program under ""."""
    root = etcdctl_help("")
    paths = [path for path in root.commands if path != "help"]
    groups = {path.split()[0] for path in paths if " " in path}
    with ThreadPoolExecutor(2) as pool:
        every = [*sorted(groups), *paths]
        return {"": root, **dict(zip(every, pool.map(etcdctl_help, every), strict=True))}


def ours(path: str) -> click.Command | None:
    command: click.Command | None = main.cli
    for word in path.split():
        if not isinstance(command, click.Group):
            return None
        command = command.get_command(click.Context(command), word)
    return command


def our_flags(command: click.Command) -> dict[str, Flag]:
    found = {}
    for option in command.params:
        if isinstance(option, click.Option):
            is_switch = bool(option.is_flag)
            default = option.get_default(click.Context(command))
            flag = Flag(is_switch, str(bool(default)).lower() if is_switch else str(default))
            found.update(dict.fromkeys(option.opts, flag))
    names = click.Context(command, parent=click.Context(main.cli)).help_option_names
    return {**found, **dict.fromkeys([*names, "-h"], Flag(True, "false"))}


def test_every_command_is_there(etcdctl: dict[str, Help]) -> None:
    """Found by walking through etcdctl's help; what is left out is so on purpose, and still."""
    assert len(etcdctl) > 40
    for path, shown in etcdctl.items():  # a group names no command that the whole program's help does not
        assert {f"{path} {name}".lstrip() for name in shown.commands} - {"help"} <= set(etcdctl)
    assert {path for path in etcdctl if ours(path) is None} == set(COMMANDS_LEFT_OUT)
    assert ours("help") is not None


def test_every_flag_is_there(etcdctl: dict[str, Help]) -> None:
    """A command's own and its group's: with its short form, its default, and a value where it has one."""
    missing, different = set(), {}
    for path, shown in etcdctl.items():
        command = ours(path)
        if command is None:
            continue
        have = our_flags(command)
        switches = [
            name for name, flag in shown.flags.items() if flag.is_switch and name not in ("-h", "--help")
        ]
        assert isinstance(command, GoSwitches) or not switches, f"{path} takes no {switches}=false"
        for name, flag in (shown.flags | group_flags(shown, etcdctl)).items():
            if name not in have:
                missing.add((path, name))
            elif have[name] != flag:
                different[path, name] = (have[name], flag)
    assert missing == set(FLAGS_LEFT_OUT)
    assert different == {}


def group_flags(shown: Help, etcdctl: dict[str, Help]) -> dict[str, Flag]:
    """What a command inherits that is no flag of the whole program."""
    return {name: flag for name, flag in shown.global_flags.items() if name not in etcdctl[""].flags}


def test_no_command_hides_a_global_flag(etcdctl: dict[str, Help]) -> None:
    """Those of the whole program stand anywhere, so no command of etcdctl's has one of the same name."""
    everywhere = set(etcdctl[""].flags) - {"-h", "--help"}
    assert len(everywhere) > 15
    for path in set(etcdctl) - {""}:
        command = ours(path)
        assert command is None or not everywhere & set(our_flags(command)), path


def test_every_format_is_there(etcdctl: dict[str, Help]) -> None:
    """Those that the help of --write-out names."""
    [named] = re.findall(r"set the output format \((.*?)\)", etcdctl[""].text)
    [option] = [one for one in main.global_options() if "--write-out" in one.opts]
    assert isinstance(option.type, click.Choice)
    assert set(named.split(", ")) - set(option.type.choices) == set(FORMATS_LEFT_OUT)
