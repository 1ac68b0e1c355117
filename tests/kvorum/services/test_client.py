"""``client.services``: both shells, on ours and on etcd."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvorum import Client, KvorumError
from kvorum.services.choice import NoInstance
from kvorum.services.records import Instance, encode
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_kvorum
from tests.kvorum.clients import MakeClient

SECONDS = 20.0
TTL = 3


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def name() -> str:
    return f"s-{uuid.uuid4().hex}"


@pytest.fixture
def other(store: Server) -> Iterator[Client]:
    """Another process's client, as it were: a plain blocking one."""
    with Client(store.url) as client:
        yield client


def ids(client: Any, name: str) -> list[str]:
    return [one.id for one in client.services.resolve(name)]


def put(client: Client, *instances: Instance) -> None:
    """By somebody else, and for ever."""
    for one in instances:
        client.put(one.key, encode(one))


def remove(client: Client, *instances: Instance) -> None:
    for one in instances:
        client.delete(one.key)


class TestRegister:
    def test_it_is_on_the_list_in_its_block(self, client: Any, other: Client, name: str) -> None:
        """With all that was said of it, on a lease; behind it both are gone."""
        said = {"metadata": {"version": "1.4"}, "tags": ["v1", "green"], "weight": 3, "zone": "eu/1a"}
        with client.services.register(name, "10.0.0.1:80", **said, ttl=TTL) as registration:
            [one] = other.services.resolve(name)
            assert one.id == one.addr == "10.0.0.1:80"
            assert {field: getattr(one, field) for field in said} == {**said, "tags": ("v1", "green")}
            assert registration.instance.id == one.id
            assert other.time_to_live(one.lease).granted_ttl == registration.ttl >= TTL
        assert other.services.resolve(name) == []
        assert other.time_to_live(one.lease).ttl == -1

    def test_an_error_in_the_block_withdraws_it_too(self, client: Any, other: Client, name: str) -> None:
        with pytest.raises(RuntimeError), client.services.register(name, "10.0.0.1:80"):
            raise RuntimeError
        assert ids(other, name) == []

    def test_it_outlives_its_time_to_live(self, client: Any, other: Client, name: str) -> None:
        """As somebody keeps it up: its lease has more time left later than it would have had."""
        with client.services.register(name, "10.0.0.1:80", ttl=TTL) as registration:
            [one] = other.services.resolve(name)
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() - begun > registration.ttl + 0.5)
            assert other.services.resolve(name) == [one]

    def test_it_comes_back_when_its_lease_was_lost(self, client: Any, other: Client, name: str) -> None:
        with client.services.register(name, "10.0.0.1:80", ttl=TTL):
            [one] = other.services.resolve(name)
            other.revoke(one.lease)
            assert ids(other, name) == []
            wait_until(lambda: ids(other, name) == ["10.0.0.1:80"], TTL)
        assert ids(other, name) == []

    def test_whoever_registers_it_again_takes_it_over(self, client: Any, other: Client, name: str) -> None:
        """A service that was killed and started again need not wait; the first one's end is not its own."""
        first = client.services.register(name, "10.0.0.1:80", weight=1)
        second = other.services.register(name, "10.0.0.1:80", weight=2)
        first.close()
        assert [one.weight for one in other.services.resolve(name)] == [2]
        second.close()
        assert ids(other, name) == []

    def test_several_have_ids_of_their_own(self, client: Any, other: Client, name: str) -> None:
        with client.services.register(name, "a:1"), client.services.register(name, "a:1", id="second"):
            assert ids(other, name) == ["a:1", "second"]

    def test_what_is_wrong_is_named_and_registers_nothing(
        self, client: Any, other: Client, name: str
    ) -> None:
        with pytest.raises(ValueError, match="the address 'x' is wrong: expected HOST:PORT"):
            client.services.register(name, "x")
        with pytest.raises(ValueError, match="the service name 'a/b' is wrong"):
            client.services.register("a/b", "a:1")
        assert ids(other, name) == []

    def test_the_end_of_the_client_withdraws_it(self, store: Server, other: Client, name: str) -> None:
        """Of the blocking one; asyncio's keeps it up no longer."""
        with Client(store.url) as client:
            client.services.register(name, "10.0.0.1:80")
            assert ids(other, name) == ["10.0.0.1:80"]
        assert ids(other, name) == []

    def test_the_end_of_a_child_process_does_not(self, store: Server, other: Client, name: str) -> None:
        """Which has it as a copy only."""
        script = (
            "import kvorum, os, sys\n"
            f"client = kvorum.Client({store.url!r})\n"
            f"with client.services.register({name!r}, 'a:1'):\n"
            f"    [one] = client.services.resolve({name!r})\n"
            "    if not (child := os.fork()):\n"
            "        sys.exit()\n"
            "    assert os.waitpid(child, 0)[1] == 0\n"
            f"    assert kvorum.Client({store.url!r}).services.resolve({name!r}) == [one]\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert ids(other, name) == []

    @pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise RuntimeError"])
    def test_the_end_of_the_process_withdraws_it(
        self, store: Server, other: Client, name: str, end: str
    ) -> None:
        """Also where nobody has closed anything."""
        script = (
            "import kvorum\n"
            f"client = kvorum.Client({store.url!r})\n"
            f"client.services.register({name!r}, 'a:1')\n"
            f"print([one.id for one in client.services.resolve({name!r})], flush=True)\n{end}\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert ran.stdout == "['a:1']\n", ran.stderr
        assert ids(other, name) == []


def test_a_store_that_is_away_is_waited_for(make_client: MakeClient, tmp_path: Path, name: str) -> None:
    """What keeps it from being renewed is told, once, and that it is over; a balancer goes on with what it
    knows."""
    port, told = free_port(), list[str | None]()
    server = start_kvorum(tmp_path, port=port).wait_until_healthy()
    try:
        with make_client(server.url, timeout=1.0) as client:
            registration = client.services.register(name, "10.0.0.1:80", ttl=2, on_problem=told.append)
            balancer = client.services.balancer(name)
            server.kill()
            wait_until(lambda: told)
            assert told[0]
            assert registration.problem
            assert balancer.pick().id == "10.0.0.1:80"
            with running(start_kvorum(tmp_path, port=port)) as server, Client(server.url) as other:
                wait_until(lambda: told[1:] == [None])
                assert ids(other, name) == ["10.0.0.1:80"]
                registration.close()
                assert ids(other, name) == []
                wait_until(lambda: balancer.instances == [])
            balancer.close()
    finally:
        server.stop()


def test_to_withdraw_while_the_store_is_away_says_so(
    make_client: MakeClient, tmp_path: Path, name: str
) -> None:
    with running(start_kvorum(tmp_path)) as server, make_client(server.url, timeout=0.5) as client:
        registration = client.services.register(name, "10.0.0.1:80")
        server.kill()
        with pytest.raises(KvorumError):
            registration.close()


ZONES = {"a": "us", "b": "eu/1b", "c": "eu/1a"}


@pytest.fixture
def three(other: Client, name: str) -> Iterator[list[Instance]]:
    """In three zones, of different tags and metadata."""
    three = [
        Instance(
            name,
            id_,
            f"{id_}:80",
            {"v": "1"} if id_ != "b" else {"v": "2"},
            ("x",) if id_ != "c" else (),
            1,
            zone,
        )
        for id_, zone in ZONES.items()
    ]
    put(other, *three)
    yield three
    remove(other, *three)


class TestAsking:
    def test_a_list_of_all_services(self, client: Any, three: list[Instance], name: str) -> None:
        """And nothing of a service whose name only begins alike."""
        with client.services.register(f"{name}-2", "z:1"):
            listed = client.services.list()
            assert listed[name] == three
            assert [one.id for one in listed[f"{name}-2"]] == ["z:1"]
            assert client.services.resolve(name) == three
        assert f"{name}-2" not in client.services.list()

    def test_filters_and_zones(self, client: Any, three: list[Instance], name: str) -> None:
        def found(**conditions: Any) -> str:
            return "".join(one.id for one in client.services.resolve(name, **conditions))

        assert found(tags=["x"]) == "ab"
        assert found(metadata={"v": "1"}) == "ac"
        assert found(zone="eu/1a") == "cba"
        assert found(tags=["x"], zone="eu/1a") == "ba"
        assert found(tags=["y"]) == ""

    def test_one_of_the_nearest(self, client: Any, three: list[Instance], name: str) -> None:
        """In turn, from one call to the next; or at random."""
        assert client.services.resolve_one(name, zone="eu/1a").id == "c"
        assert [client.services.resolve_one(name, tags=["x"]).id for _ in range(4)] in (
            ["a", "b"] * 2,
            ["b", "a"] * 2,
        )
        assert client.services.resolve_one(name, zone="us", policy="random").id == "a"
        with pytest.raises(
            NoInstance, match=f"no instance of {name} is registered that meets the conditions"
        ):
            client.services.resolve_one(name, tags=["y"])
        with pytest.raises(ValueError, match="the policy 'best' is unknown"):
            client.services.resolve_one(name, policy="best")

    def test_very_many(self, client: Any, other: Client, name: str) -> None:
        """They are read in pages."""
        for begin in range(0, 1100, 100):
            with other.txn() as t:
                for number in range(begin, begin + 100):
                    t.put(f"/services/{name}/{number:04}", '{"Addr":"h:1"}')
        assert ids(client, name) == [f"{number:04}" for number in range(1100)]
        other.delete(f"/services/{name}/", prefix=True)

    def test_somebody_can_be_taken_off_the_list(self, client: Any, other: Client, name: str) -> None:
        """He does not notice, and does not come back as long as his lease lives."""
        with other.services.register(name, "a:1", ttl=TTL) as registration:
            assert client.services.deregister(name, "a:1") is True
            assert client.services.deregister(name, "a:1") is False
            begun = time.monotonic()
            wait_until(lambda: time.monotonic() - begun > registration.ttl / 2)
            assert ids(client, name) == []
            assert registration.problem is None


def test_a_watch_tells_who_is_there_and_who_comes_and_goes(client: Any, other: Client, name: str) -> None:
    """In order; what is no record, or no change of one, is not told."""
    one, changed = Instance(name, "a", "a:1"), Instance(name, "a", "a:2")
    put(other, one)
    told = []
    with client.services.watch(name) as watch:
        put(other, one)
        other.put(f"/services/{name}/b", "no record")
        put(other, changed)
        put(other, Instance(name + "-2", "x", "x:1"))
        remove(other, changed, Instance(name + "-2", "x", ""))
        put(other, Instance(name, "c", "c:1"))
        for change in watch:
            told.append((change.kind, change.instance.id, change.instance.addr))
            if change.instance.id == "c":
                break
    assert told == [
        ("added", "a", "a:1"),
        ("changed", "a", "a:2"),
        ("removed", "a", "a:2"),
        ("added", "c", "c:1"),
    ]
    other.delete(f"/services/{name}/", prefix=True)


def test_a_watch_of_those_who_meet_conditions(client: Any, other: Client, name: str) -> None:
    blue, green = (Instance(name, "a", "a:1", {"v": "1"}, (colour,)) for colour in ("blue", "green"))
    with client.services.watch(name, tags=["green"], metadata={"v": "1"}) as watch:
        put(other, blue, green, blue, Instance(name, "b", "b:1", {"v": "2"}, ("green",)), green)
        changes = iter(watch)
        assert [next(changes).kind for _ in range(3)] == ["added", "removed", "added"]
    other.delete(f"/services/{name}/", prefix=True)


def test_a_watch_can_be_closed_by_somebody_else(client: Any, name: str) -> None:
    """Its iteration ends."""
    with client.services.watch(name) as watch:
        changes: list[Any] = []
        reader = threading.Thread(target=lambda: changes.extend(watch))
        reader.start()
        watch.close()
        reader.join(SECONDS)
        assert not reader.is_alive()
        assert changes == []


class TestBalancer:
    def test_it_takes_turns_and_follows(self, client: Any, other: Client, name: str) -> None:
        """From memory: no instance is taken that is not on the list, and all that are."""
        first, second, third = (Instance(name, id_, f"{id_}:1") for id_ in "abc")
        put(other, first, second)
        with client.services.balancer(name) as balancer:
            assert [balancer.pick().id for _ in range(4)] in (["a", "b"] * 2, ["b", "a"] * 2)
            put(other, third)
            wait_until(lambda: len(balancer.instances) == 3)
            assert {balancer.pick().id for _ in range(3)} == {"a", "b", "c"}
            remove(other, first, second)
            wait_until(lambda: len(balancer.instances) == 1)
            assert {balancer.pick().id for _ in range(3)} == {"c"}
            remove(other, third)
            wait_until(lambda: balancer.instances == [])
            with pytest.raises(NoInstance):
                balancer.pick()

    def test_conditions_and_zones(self, client: Any, three: list[Instance], name: str) -> None:
        with client.services.balancer(name, tags=["x"], zone="eu/1a", policy="random") as balancer:
            assert [one.id for one in balancer.instances] == ["b", "a"]
            assert {balancer.pick().id for _ in range(9)} == {"b"}

    def test_what_is_wrong_is_named(self, client: Any, name: str) -> None:
        with pytest.raises(ValueError, match="the policy 'best' is unknown"):
            client.services.balancer(name, policy="best")
        with pytest.raises(ValueError, match="the service name"):
            client.services.balancer("a/b")

    def test_many_threads_share_the_turns(self, other: Client, name: str) -> None:
        """Exactly: nobody's turn is lost between two."""
        two = [Instance(name, id_, f"{id_}:1") for id_ in "ab"]
        put(other, *two)
        with other.services.balancer(name) as balancer:
            taken: list[str] = []
            threads = [
                threading.Thread(target=lambda: taken.extend(balancer.pick().id for _ in range(500)))
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert taken.count("a") == taken.count("b") == 1000
        remove(other, *two)
