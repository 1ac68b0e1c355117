"""The fixed list of requests gets etcd's answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.common.servers import running, start_etcd, start_kvorum
from tests.differential.compare import assert_same
from tests.differential.corpus import SEQUENCES


@pytest.mark.parametrize("name", SEQUENCES)
def test_answers_like_etcd(name: str, tmp_path: Path) -> None:
    """Status, content type and body of every answer are etcd's."""
    with running(start_etcd(tmp_path)) as etcd, running(start_kvorum(tmp_path)) as kvorum:
        for request in SEQUENCES[name]:
            assert_same(etcd, kvorum, request)
