"""docs/cli.md: what is printed there is what is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.common.commands import KVORUM
from tests.common.servers import ROOT, Server, running, start_etcd, start_kvorum


def transcript(title: str) -> list[tuple[str, str]]:
    """Commands and their output, in order; the lines of one command begin with ``$ `` and ``> ``."""
    page = (ROOT / "docs/cli.md").read_text()
    [section] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    found = []
    for block in re.findall(r"^```\n(.*?)^```$", section, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            first, *lines = part.splitlines()
            command = [first]
            while lines and lines[0].startswith("> "):
                command.append(lines.pop(0)[2:])
            found.append(("\n".join(command), "".join(f"{line}\n" for line in lines)))
    return found


@pytest.mark.parametrize(
    ("title", "count", "start"),
    [
        ("Data", 21, start_kvorum),
        ("Rendering", 8, start_kvorum),
        ("Contexts", 7, start_kvorum),
        ("Users", 11, start_etcd),
    ],
)
def test_the_examples_are_true(
    title: str, count: int, start: Callable[[Path], Server], tmp_path: Path
) -> None:
    """Each section in a new store, one after the other."""
    commands = transcript(title)
    assert len(commands) >= count
    with running(start(tmp_path)) as server:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KVORUM_")},
            "KVORUM_ENDPOINTS": f"127.0.0.1:{server.port}",
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        }
        (tmp_path / "kvorum").write_text(f'#!/bin/sh\nexec {shlex.join(KVORUM)} "$@"\n')
        (tmp_path / "kvorum").chmod(0o755)
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        folder, code = tmp_path / "here", 0
        folder.mkdir()
        for command, expected in commands:
            ran = subprocess.run(
                ["sh", "-c", f"(exit {code})\n{command}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                check=False,
            )
            code = ran.returncode
            assert ran.stdout.decode() == expected, command
