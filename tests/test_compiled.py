"""The compiled build can be made, up to where the C compiler takes over. The rest is for ``--compiled``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.common.servers import ROOT


def test_mypyc_takes_every_module_on_the_list(tmp_path: Path) -> None:
    for name in ("api", "kvorum", "kvstate", "raft", "watch"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {**os.environ, "KVORUM_COMPILE": "1"}
    command = [sys.executable, "setup.py", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "build").glob("__native_*.c"))
