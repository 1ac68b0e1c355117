"""What the benchmarks read from wrk, from streams, from /proc and from lists of moments."""

from __future__ import annotations

import json

import pytest

from bench.failover import Gap, longest_gap, table
from bench.figures import P50, P99, PER_SECOND
from bench.filling import transaction
from bench.load import parse_wrk
from bench.memory import parse_status
from bench.watchers import Events, times

WRK = """\
Running 2s test @ http://127.0.0.1:15001
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.96ms    3.02ms  35.61ms   85.71%
    Req/Sec    12.75k     1.60k   15.15k    60.00%
  Latency Distribution
     50%  930.00us
     75%    5.32ms
     90%    8.22ms
     99%    1.05s
  25466 requests in 2.01s, 5.60MB read
Requests/sec:  12648.43
Transfer/sec:      2.78MB
"""


def test_wrk_is_read() -> None:
    """Rate, p50 and p99 are taken from wrk's report, in milliseconds whatever its units."""
    assert parse_wrk(WRK) == {PER_SECOND: 12648.43, P50: 0.93, P99: 1050.0}


@pytest.mark.parametrize(
    "spoiled",
    [
        WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 3\nRequests/sec"),
        WRK.replace("Requests/sec", "  Socket errors: connect 0, read 0, write 0, timeout 2\nRequests/sec"),
        WRK.replace("12648.43", "0.00"),
        "",
    ],
)
def test_wrk_with_errors_is_refused(spoiled: str) -> None:
    """Figures of a run with a wrong or missing answer are worth nothing."""
    with pytest.raises(ValueError, match=r"200|no figures"):
        parse_wrk(spoiled)


def test_memory_is_read() -> None:
    """Resident and anonymous KiB come from the lines of these names, wherever they stand."""
    status = "Name:\tkvorum\nVmRSS:\t   52344 kB\nRssAnon:\t   40112 kB\nRssFile:\t   12232 kB\n"
    assert parse_status(status) == (52344, 40112)


def test_keys_are_loaded_in_transactions() -> None:
    """A transaction puts each key of its range once, with a value of the size that was asked for."""
    puts = json.loads(transaction(range(3, 5), value_bytes=3))["success"]
    assert puts == [
        {"request_put": {"key": "YmVuY2gva2V5MDAwMDAwMDM=", "value": "dnZ2"}},
        {"request_put": {"key": "YmVuY2gva2V5MDAwMDAwMDQ=", "value": "dnZ2"}},
    ]


def test_events_are_counted_however_the_stream_is_cut() -> None:
    """Each event counts once, also where its mark is cut between two reads."""
    event = {"kv": {"key": "a2V5", "create_revision": "2", "mod_revision": "3", "value": "dg=="}}
    stream = b"".join(
        json.dumps({"result": {"events": [event] * n}}, separators=(",", ":")).encode() + b"\n"
        for n in (1, 3, 2)
    )
    for size in range(1, len(stream) + 1):
        events = Events()
        found = [events.count(stream[at : at + size]) for at in range(0, len(stream), size)]
        assert sum(found) == events.seen == 6


def test_times_are_read_from_values() -> None:
    """Of a piece of a stream, the whole values give their moments; a cut one gives none."""
    value = b'"value":"MDAwMDAwMDAwMDE1MDAwMDAwMDB2dg=="'  # 00000000001500000000vv
    assert times(value + b"}}" + value[:20]) == [1.5]


def test_gap_spans_the_kill() -> None:
    """The gap begins at the last success before the kill, not at the kill; earlier ones do not count,
    and an answer of the dead leader that is read late does not end it."""
    moments = [1.0, 5.0, 5.1, 5.3, 6.9, 7.0]
    assert longest_gap(moments, killed_at=5.2, ended_at=7.1) == pytest.approx(1.6)


def test_failover_is_a_table() -> None:
    """Every line has as many cells as the heading; the last is kvorum's beside etcd's."""
    failover = table({"etcd": [Gap(1000, 2000)], "kvorum": [Gap(500, 3000)]})
    assert len({text.count("|") for text in failover.splitlines()}) == 1
    assert "**0.50×** | **0.50×** | **1.50×** | **1.50×**" in failover
