"""A run of steady load: when requests are due, and what is judged steady."""

from __future__ import annotations

import random
import socket
import threading
import time

import pytest

from bench.connection import Connection
from bench.judging import Latency, Minute, Node, judge, quarter
from bench.paced import Paced, Schedule
from bench.steady import COLUMNS, page


def minute(
    number: int, p50: float = 2.0, memory: float = 40.0, wal: float = 20.0, state: float = 8.0
) -> Minute:
    latency = Latency(p50, 10.0, 50.0)
    return Minute(number, latency, latency, 0, [Node(memory, wal, state, 40)])


def grew(minutes: list[Minute]) -> list[str]:
    return [verdict.told for verdict in judge(minutes) if not verdict.steady]


def test_what_stays_is_steady() -> None:
    """Equal minutes are steady, also when the first quarter was worse or better."""
    minutes = [minute(number) for number in range(3, 9)]
    assert grew([minute(1, p50=90), minute(2, memory=5), *minutes]) == []


@pytest.mark.parametrize(
    ("what", "later"),
    [
        ("n1 anonymous memory: 40 → 49 MiB", {"memory": 49.0}),
        ("n1 log on disk, at most: 20 → 60 MiB", {"wal": 60.0}),
        ("n1 state on disk, at most: 8 → 16 MiB", {"state": 16.0}),
    ],
)
def test_growth_is_told(what: str, later: dict[str, float]) -> None:
    """Memory may grow by a tenth and some MiB, files likewise; more is named, with both figures."""
    assert grew([minute(n) for n in range(1, 7)] + [minute(n, **later) for n in (7, 8)]) == [what]


def test_latency_creep_is_told() -> None:
    """Slower puts and gets in the last quarter are creep."""
    minutes = [minute(n) for n in range(1, 7)] + [minute(n, p50=3.0) for n in (7, 8)]
    assert grew(minutes) == ["put p50: 2 → 3 ms", "get p50: 2 → 3 ms"]


def test_one_bad_minute_is_no_creep() -> None:
    """Medians are compared: a minute in which the machine did something else is forgiven."""
    minutes = [minute(n) for n in range(1, 12)]
    assert grew([*minutes, minute(12, p50=50)]) == []


def test_failed_requests_are_not_steady() -> None:
    """A single one, in whichever minute."""
    minutes = [minute(n) for n in range(1, 9)]
    assert grew([minutes[0]._replace(failed=1), *minutes[1:]]) == ["1 requests failed"]


def test_quarters_cover_every_minute() -> None:
    """None is in two of them, and none in no quarter, whatever their number."""
    for length in range(4, 70):
        minutes = [minute(n) for n in range(length)]
        assert [one for number in range(4) for one in quarter(minutes, number)] == minutes


def test_requests_are_due_at_their_time() -> None:
    """Ten a second are due ten a second, also those that were asked for late."""
    schedule = Schedule(10, 0.5, start=100.0, rng=random.Random(1))
    assert [request.due for request in schedule.take(100.15)] == pytest.approx([100.0, 100.1])
    assert schedule.take(100.15) == []
    assert [request.due for request in schedule.take(100.4)] == pytest.approx([100.2, 100.3, 100.4])


def test_share_of_puts() -> None:
    """Puts and gets come in their proportion."""
    requests = Schedule(1000, 0.2, start=0.0, rng=random.Random(1)).take(10.0)
    assert 0.18 < sum(request.kind == "put" for request in requests) / len(requests) < 0.22


def test_a_stalled_server_is_charged_for_what_was_due() -> None:
    """One connection, and a server that answers the first request only after 0.2 s: requests that
    were due meanwhile count from when they were due, not from when they could be sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=stall_once, args=(listener, 0.2), daemon=True).start()
        start = time.monotonic()
        load = Paced([listener.getsockname()[1]], 1, Schedule(50, 0, start, random.Random()), keys=1)
        latencies = load.run(start + 0.5).latencies["get"]
        load.close()
    assert latencies[0] >= 0.2
    assert sum(latency > 0.05 for latency in latencies) >= 5


def stall_once(listener: socket.socket, seconds: float) -> None:
    """A server of one connection whose first answer takes so long."""
    accepted, _ = listener.accept()
    with accepted:
        while accepted.recv(65536):
            time.sleep(seconds)
            seconds = 0
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def test_answers_are_read_however_they_are_cut() -> None:
    """An answer is there with its last byte, not before; anything but 200 is an error."""
    server, client = connected()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    for at, byte in enumerate(answer):
        server.sendall(bytes([byte]))
        assert client.receive() == (b"{}" if at == len(answer) - 1 else None)
    server.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    with pytest.raises(ConnectionError, match="503"):
        client.receive()
    server.close()
    client.close()


def connected() -> tuple[socket.socket, Connection]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Connection(listener.getsockname()[1])
        return listener.accept()[0], client


def test_page_shows_every_fifth_minute_of_a_long_run() -> None:
    """The table of an hour has twelve lines, and as many cells in each as its heading."""
    minutes = [minute(number) for number in range(1, 61)]
    lines = [line for line in page(["2 cores"], minutes, judge(minutes)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 12
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}
