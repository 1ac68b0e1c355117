"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.common import processes
from tests.common.servers import Server, running, start_kvorum

settings.register_profile(
    "kvorum", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("kvorum")

processes.start = processes.forked_if_ours

# What it changes is to be seen on every machine, or on none.
os.environ.pop("PYTHONUNBUFFERED", None)

# Whoever runs the suite in the background may have these ignored, and so would all that it starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="Scripts: write what is printed in place of what is expected."
    )


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether scripts are to be changed rather than to fail."""
    return bool(request.config.getoption("--rewrite"))


@pytest.fixture(scope="session")
def kvorum_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node that tests of the whole session share: use keys of your own."""
    with running(start_kvorum(tmp_path_factory.mktemp("kvorum"))) as server:
        yield server
