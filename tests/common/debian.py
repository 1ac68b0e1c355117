"""Programs of Debian's that tests talk to."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

INSTALL_SECONDS = 300


def program(name: str, package: str) -> str:
    """Its path. As root it is installed if it is missing; where it cannot be had the test is skipped, but
    not in CI."""
    if found := shutil.which(name):
        return found
    reason = f"{name} is not there: apt-get install {package}"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        lock = ["-o", f"DPkg::Lock::Timeout={INSTALL_SECONDS}"]
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
            ran = subprocess.run(
                ["apt-get", *lock, *words], env=environment, capture_output=True, text=True,
                timeout=INSTALL_SECONDS, check=False,
            )  # fmt: skip
            reason = f"{name} could not be installed: {ran.stderr.strip()[-300:]}"
    if found := shutil.which(name):
        return found
    if os.environ.get("CI"):
        raise AssertionError(reason)
    pytest.skip(reason)
