"""The examples of the documentation, run: what they say they print is what they print."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.servers import ROOT, Server, running, start_kvorum

PAGES = ["docs/library.md", "docs/services.md"]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAID = re.compile(r"^.*print\(.*\)  # (.*)$|^# (.*)$", re.MULTILINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(start_kvorum(tmp_path)) as server:
        yield server


@pytest.mark.parametrize("page", PAGES)
def test_examples_print_what_they_say(page: str, server: Server) -> None:
    """The blocks of a page are one program; what is printed stands behind ``print`` or alone."""
    blocks = _BLOCK.findall((ROOT / page).read_text())
    assert blocks, f"{page} has no examples: is it worth testing?"
    names: dict[str, object] = {}
    try:
        for block in blocks:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                program = block.replace("127.0.0.1:2379", f"127.0.0.1:{server.port}")
                exec(compile(program, page, "exec", dont_inherit=True), names)
            said = [behind or alone for behind, alone in _SAID.findall(block)]
            assert printed.getvalue().splitlines() == said, block
    finally:
        client = names.get("client")
        if client is not None:
            client.close()  # type: ignore[attr-defined]
