"""What comes over the wire: answers of gateways of all generations, and of others that stand in between."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kvorum.errors import ConnectionFailed, KvorumError, LeaseNotFound, ServerError, Unavailable
from kvorum.messages import Lines, as_bytes, decode, decode_frame, put_request
from kvorum.plans import is_passing

NOT_FOUND = "etcdserver: requested lease not found"


@pytest.mark.parametrize(
    "answer",
    [
        {"error": NOT_FOUND, "code": 5, "message": NOT_FOUND},
        {"code": 5, "message": NOT_FOUND, "details": []},
        {"error": {"grpc_code": 5, "http_code": 404, "message": NOT_FOUND, "http_status": "Not Found"}},
        {"error": {"code": 5, "message": NOT_FOUND, "details": []}},
    ],
)
def test_refusals_of_all_generations_of_gateways(answer: dict[str, Any]) -> None:
    for refuse in (lambda: decode(404, orjson.dumps(answer)), lambda: decode_frame(orjson.dumps(answer))):
        with pytest.raises(LeaseNotFound) as caught:
            refuse()
        assert (caught.value.message, caught.value.code) == (NOT_FOUND, 5)
        assert not caught.value.maybe_done


def test_a_refusal_is_one_whatever_the_status_says() -> None:
    """The status of a stream's answer is sent before its end is known."""
    with pytest.raises(LeaseNotFound):
        decode(200, orjson.dumps({"error": {"grpc_code": 5, "message": NOT_FOUND}}))


PROXY_BODIES = [
    b"<html>Bad Gateway</html>",
    b"",
    b"[]",
    b"{}",
    b'{"message":"An invalid response was received from the upstream server"}',
    b'{"error":"upstream","code":"UND"}',
    b'{"error":{"code":"upstream_failed","message":"no healthy upstream"}}',
    b'{"error":null,"code":null}',
]


@pytest.mark.parametrize("body", PROXY_BODIES)
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_that_cannot_pass_on_may_have_done_so_and_others_are_asked(status: int, body: bytes) -> None:
    with pytest.raises(Unavailable, match=f"the server answered {status}") as caught:
        decode(status, body)
    assert caught.value.maybe_done
    assert is_passing(caught.value)


@pytest.mark.parametrize(
    ("status", "is_known_not_to_be_done"),
    [
        (200, False),
        (301, True),
        (404, True),
        (408, False),
        (413, True),
        (429, True),
        (499, False),
        (500, False),
    ],
)
def test_what_is_no_answer_of_a_gateway_is_no_proof_either(
    status: int, is_known_not_to_be_done: bool
) -> None:
    with pytest.raises(ServerError, match=f"the server answered {status} Oops") as caught:
        decode(status, b"Oops")
    assert caught.value.maybe_done is not is_known_not_to_be_done
    assert is_passing(caught.value) is (status == 429)


@pytest.mark.parametrize("line", [b"<html>", b"[]", b'{"result":{"events":[', b"{}", b'{"result":5}'])
def test_a_frame_that_is_none_ends_the_stream_and_no_more(line: bytes) -> None:
    with pytest.raises(ConnectionFailed):
        decode_frame(line)


def test_lines_come_whole_and_the_last_one_need_not_end() -> None:
    """Some gateways write a refusal without a line's end, and hang up."""
    lines = Lines()
    assert lines.feed(b"a") == []
    assert lines.feed(b"b\nc\n\nd") == [b"ab", b"c"]
    assert lines.rest() == b"d"
    assert lines.rest() == b""


@pytest.mark.parametrize("given", ["k\u00e9y", "k\u00e9y".encode(), bytearray("k\u00e9y".encode())])
def test_keys_and_values_are_text_or_bytes(given: Any) -> None:
    assert as_bytes(given) == b"k\xc3\xa9y"
    assert type(as_bytes(given)) is bytes


@pytest.mark.parametrize("given", [5, None, ["a"], 1.5])
def test_what_is_neither_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="expected str or bytes"):
        as_bytes(given)


def test_a_lease_is_named_by_its_id() -> None:
    assert put_request("a", "b", lease=77)["lease"] == "77"
    for wrong in ("77", object(), True):
        with pytest.raises(TypeError, match="expected the id of a lease"):
            put_request("a", "b", lease=wrong)  # type: ignore[arg-type]


def test_no_error_has_a_whole_page_in_it() -> None:
    with pytest.raises(KvorumError) as caught:
        decode(500, b"x" * 100_000)
    assert len(str(caught.value)) < 300
