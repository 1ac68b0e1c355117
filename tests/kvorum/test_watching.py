"""A watch over reconnects: where it goes on, what it makes of silence, and when it gives up."""

from __future__ import annotations

from typing import Any

import pytest

from kvorum.errors import Compacted, InvalidToken, ServerError
from kvorum.messages import b64
from kvorum.plans import CloseStream
from kvorum.watching import WatchPlans
from tests.kvorum.fake_effects import BROKEN, REFUSED, ReadTimesOut, Stage, Takes, answer, frame, refusal

STATUS = "/v3/maintenance/status"
STREAM = object()


def header(revision: int) -> dict[str, str]:
    return {"revision": str(revision)}


def created(revision: int) -> bytes:
    return frame(header=header(revision), created=True)


def changes(*revisions: int, key: bytes = b"k") -> bytes:
    events = [{"kv": {"key": b64(key), "mod_revision": str(revision)}} for revision in revisions]
    return frame(header=header(max(revisions)), events=events)


def watching(*outcomes: Any, start: int = 0, **options: Any) -> tuple[Stage, WatchPlans]:
    stage = Stage(*outcomes, **options)
    return stage, WatchPlans(stage.core, {"key": b64(b"k")}, start)


def revisions(stage: Stage, watch: WatchPlans) -> list[int]:
    return [batch.revision for batch in stage.run(watch.next_batches())]


def test_a_watch_without_a_start_begins_behind_the_revision_it_was_made_at() -> None:
    stage, watch = watching(STREAM, created(7), BROKEN, STREAM, created(9), changes(8, 9))
    assert stage.run(watch.start()) == 8
    assert revisions(stage, watch) == [8, 9]
    assert [one.get("start_revision") for one in stage.opened()] == [None, "8"]


def test_it_goes_on_at_the_revision_after_the_last_one_told() -> None:
    stage, watch = watching(STREAM, created(7), changes(8, 9, 9), BROKEN, STREAM, created(12), changes(11))
    batches = stage.run(watch.next_batches())
    assert [(one.revision, len(one.events)) for one in batches] == [(8, 1), (9, 2)]
    assert revisions(stage, watch) == [11]
    assert stage.opened()[1]["start_revision"] == "10"


def test_what_was_told_already_does_not_come_twice() -> None:
    stage, watch = watching(STREAM, created(7), changes(8), changes(8, 9), start=8)
    assert revisions(stage, watch) == [8]
    assert revisions(stage, watch) == [9]


def test_progress_moves_on_where_it_resumes_so_that_a_quiet_watch_outlives_compactions() -> None:
    stage, watch = watching(
        STREAM, created(7), frame(header=header(500)), BROKEN, STREAM, created(600), changes(501)
    )
    assert revisions(stage, watch) == [501]
    assert stage.opened()[1]["start_revision"] == "501"


def test_the_header_of_a_watch_that_starts_in_the_past_is_no_progress() -> None:
    """It tells of the store, not of what was sent."""
    stage, watch = watching(STREAM, created(500), BROKEN, STREAM, created(500), changes(8), start=8)
    assert revisions(stage, watch) == [8]
    assert [one["start_revision"] for one in stage.opened()] == ["8", "8"]


def test_compaction_is_raised_with_the_oldest_revision_there_is() -> None:
    stage, watch = watching(
        STREAM, frame(header=header(9), created=True, canceled=True, compact_revision="6"), start=2
    )
    with pytest.raises(Compacted) as caught:
        stage.run(watch.next_batches())
    assert caught.value.compact_revision == 6


def test_a_watch_that_the_server_refuses_is_raised() -> None:
    reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    stage, watch = watching(STREAM, frame(created=True, canceled=True, cancel_reason=reason))
    with pytest.raises(ServerError, match="permission denied"):
        stage.run(watch.next_batches())


def test_a_silent_member_that_has_a_leader_is_stayed_with() -> None:
    stage, watch = watching(STREAM, created(7), ReadTimesOut(), answer(leader="1"), changes(8))
    assert revisions(stage, watch) == [8]
    assert len(stage.opened()) == 1


@pytest.mark.parametrize("ping", [answer(), answer(leader="0"), REFUSED, BROKEN])
def test_a_silent_member_that_does_not_answer_or_knows_no_leader_is_left(ping: object) -> None:
    stage, watch = watching(STREAM, created(7), ReadTimesOut(), ping, STREAM, created(9), changes(8))
    assert revisions(stage, watch) == [8]
    assert stage.opened()[1]["start_revision"] == "8"
    assert stage.asked(STATUS) == ["a"]
    assert stage.core.endpoints.current.startswith("http://b:")


def test_it_tries_as_long_as_it_takes_with_pauses() -> None:
    stage, watch = watching(*[REFUSED] * 50, STREAM, created(7), changes(8))
    assert revisions(stage, watch) == [8]
    assert len(stage.slept()) == 50 // 3
    assert max(stage.slept()) <= 2


def test_a_watch_that_was_closed_ends() -> None:
    stage, watch = watching(STREAM, created(7), changes(8))
    assert revisions(stage, watch) == [8]

    def close(_: object) -> object:
        watch.is_closed = True
        return BROKEN

    stage.outcomes = [close]
    assert stage.run(watch.next_batches()) == []
    assert watch.stream is None


def test_closing_a_watch_is_no_failure_of_the_member() -> None:
    """Others would go elsewhere for nothing, perhaps to one that is dead."""
    stage, watch = watching(STREAM, created(7))
    stage.run(watch.start())
    stage.outcomes = [lambda _: closed(watch)]
    assert stage.run(watch.next_batches()) == []
    assert stage.core.endpoints.current.startswith("http://a:")


def test_a_watch_that_is_closed_while_it_starts_leaves_no_stream_behind() -> None:
    stage, watch = watching()

    def open_late(_: object) -> object:
        watch.is_closed = True
        return STREAM

    stage.outcomes = [open_late]
    assert stage.run(watch.start()) == 0
    assert CloseStream(STREAM) in stage.effects


def test_a_member_that_makes_a_watch_and_hangs_up_each_time_is_asked_with_pauses() -> None:
    again = (STREAM, created(7), BROKEN)
    stage, watch = watching(*again * 30, STREAM, created(7), changes(8))
    assert revisions(stage, watch) == [8]
    assert len(stage.slept()) == 10


def test_a_watch_that_is_quiet_for_long_is_resumed_without_a_pause() -> None:
    quiet = (STREAM, created(7), ReadTimesOut(), answer(leader="1"), BROKEN)
    stage, watch = watching(*quiet * 30, STREAM, created(7), changes(8))
    assert revisions(stage, watch) == [8]
    assert stage.slept() == []


def test_a_member_that_does_not_confirm_the_watch_is_left() -> None:
    """A proxy that holds back what it is sent, until there is more of it."""
    stage, watch = watching(STREAM, ReadTimesOut(), STREAM, created(7), changes(8))
    assert revisions(stage, watch) == [8]
    assert stage.core.endpoints.current.startswith("http://b:")


def test_progress_that_says_nothing_new_is_silence() -> None:
    """A member that is cut off may go on to say that it knows no more."""
    nothing_new = [Takes(4, frame(header=header(7)))] * 3
    stage, watch = watching(STREAM, created(7), *nothing_new, answer(), STREAM, created(9), changes(8))
    assert revisions(stage, watch) == [8]
    assert stage.asked(STATUS) == ["a"]
    assert stage.core.endpoints.current.startswith("http://b:")


@pytest.mark.parametrize("line", [b"<html>", b'{"result":{"header":{"revision":'])
def test_a_stream_that_ends_in_something_else_is_resumed(line: bytes) -> None:
    stage, watch = watching(STREAM, created(7), changes(8), line, STREAM, created(9), changes(9))
    assert [*revisions(stage, watch), *revisions(stage, watch)] == [8, 9]
    assert stage.opened()[1]["start_revision"] == "9"


def test_a_watch_that_is_cancelled_for_a_passing_reason_goes_on_elsewhere() -> None:
    reason = "rpc error: code = Unavailable desc = etcdserver: no leader"
    stage, watch = watching(
        STREAM, created(7), frame(canceled=True, cancel_reason=reason), STREAM, created(9), changes(8)
    )
    assert revisions(stage, watch) == [8]
    assert stage.opened()[1]["start_revision"] == "8"


def test_a_watch_that_is_cancelled_without_a_reason_was_not_compacted() -> None:
    stage, watch = watching(STREAM, created(7), frame(canceled=True))
    with pytest.raises(ServerError, match="without a reason") as caught:
        stage.run(watch.next_batches())
    assert not isinstance(caught.value, Compacted)


def test_a_member_that_has_forgotten_all_tokens_by_a_restart_is_asked_for_another() -> None:
    invalid = raised(refusal("etcdserver: invalid auth token", 16, 401))
    for_one_restart = (BROKEN, REFUSED, REFUSED, invalid, answer(token="t"), STREAM, created(7))
    stage, watch = watching(
        *(answer(token="t"), STREAM, created(7), *for_one_restart * 2, changes(8)), user="ann", password="x"
    )
    assert revisions(stage, watch) == [8]


def test_a_token_that_has_become_invalid_is_renewed() -> None:
    invalid = refusal("etcdserver: invalid auth token", 16, 401)
    outcomes = (answer(token="t1"), raised(invalid), answer(token="t2"), STREAM, created(7), changes(8))
    stage, watch = watching(*outcomes, user="ann", password="x")
    assert revisions(stage, watch) == [8]


def test_a_user_who_may_not_watch_is_told_after_one_more_login() -> None:
    denied = frame(created=True, canceled=True, cancel_reason="etcdserver: permission denied")
    outcomes = (answer(token="t1"), STREAM, denied, answer(token="t2"), STREAM, denied)
    stage, watch = watching(*outcomes, user="ann", password="x")
    with pytest.raises(ServerError, match="permission denied"):
        stage.run(watch.next_batches())
    assert stage.outcomes == []


def test_a_token_that_stays_invalid_is_raised() -> None:
    invalid = raised(refusal("etcdserver: invalid auth token", 16, 401))
    outcomes = (answer(token="t1"), invalid, answer(token="t2"), invalid)
    stage, watch = watching(*outcomes, user="ann", password="x")
    with pytest.raises(InvalidToken):
        stage.run(watch.next_batches())


def closed(watch: WatchPlans) -> Any:
    """As the shells do it: the stream that is read ends."""
    watch.is_closed = True
    return BROKEN


def raised(reply: Any) -> Any:
    """As the shells do with a stream that begins with a refusal."""
    from kvorum.messages import decode

    def open_stream(_: object) -> object:
        return decode(reply.status, reply.body)

    return open_stream
