"""The server's packages have names that others have too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kvorum.server_packages import HOME


def serve_help(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvorum", "serve", "--help"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{directory}:{HOME}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ours_come_first_where_a_project_has_an_api_too(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "__init__.py").touch()
    done = serve_help(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Run a Kvorum server." in done.stdout


def test_one_that_is_imported_already_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    for module in ("__init__", "flags"):
        (tmp_path / "api" / f"{module}.py").touch()
    (tmp_path / "sitecustomize.py").write_text("import api.flags\n")
    done = serve_help(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: the folder {tmp_path} has a package named api that hides Kvorum's own in {HOME}:"
        " run kvorum from another folder, or by its console command.\n"
    )
