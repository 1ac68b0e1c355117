"""The fixed list: requests good and bad, in sequences. Each runs on fresh servers, in order."""

from __future__ import annotations

import base64

from tests.differential.compare import Request, post

RANGE, PUT, DELETE = "/v3/kv/range", "/v3/kv/put", "/v3/kv/deleterange"
TXN, COMPACTION, HASHKV = "/v3/kv/txn", "/v3/kv/compaction", "/v3/maintenance/hashkv"
GRANT, REVOKE, KEEPALIVE = "/v3/lease/grant", "/v3/lease/revoke", "/v3/lease/keepalive"
TIMETOLIVE, LEASES = "/v3/lease/timetolive", "/v3/lease/leases"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def put(key: bytes, value: bytes = b"", **more: object) -> Request:
    return post(PUT, {"key": b64(key), "value": b64(value), **more})


def get(key: bytes, end: bytes = b"", **more: object) -> Request:
    return post(RANGE, {"key": b64(key), "range_end": b64(end), **more})


def delete(key: bytes, end: bytes = b"", **more: object) -> Request:
    return post(DELETE, {"key": b64(key), "range_end": b64(end), **more})


def txn(compare: list = (), success: list = (), failure: list = ()) -> Request:
    return post(TXN, {"compare": list(compare), "success": list(success), "failure": list(failure)})


def op_put(key: bytes, value: bytes = b"", **more: object) -> dict:
    return {"request_put": {"key": b64(key), "value": b64(value), **more}}


def op_get(key: bytes, end: bytes = b"", **more: object) -> dict:
    return {"request_range": {"key": b64(key), "range_end": b64(end), **more}}


def op_delete(key: bytes, end: bytes = b"", **more: object) -> dict:
    return {"request_delete_range": {"key": b64(key), "range_end": b64(end), **more}}


def op_txn(compare: list = (), success: list = (), failure: list = ()) -> dict:
    return {"request_txn": {"compare": list(compare), "success": list(success), "failure": list(failure)}}


def compactions(*revisions: int, **more: object) -> list[Request]:
    return [post(COMPACTION, {"revision": revision, **more}) for revision in revisions]


def hash_kvs(*revisions: int) -> list[Request]:
    return [post(HASHKV, {"revision": revision}) for revision in revisions]


def grant(lease: int, ttl: int = 500) -> Request:
    return post(GRANT, {"ID": lease, "TTL": ttl})


def revoke(lease: int) -> Request:
    return post(REVOKE, {"ID": lease})


def keep_alive(*leases: int) -> Request:
    return Request(KEEPALIVE, b"\n".join(b'{"ID":%d}' % lease for lease in leases))


def time_to_live(*leases: int) -> list[Request]:
    return [post(TIMETOLIVE, {"ID": lease, "keys": True}) for lease in leases]


EMPTY_STORE = [
    get(b"a"),
    get(b"\0", b"\0"),
    delete(b"a"),
    *hash_kvs(0, 1, 2),
    *compactions(0, 0, -1, 1, 2),
    get(b"a", revision=1),
    get(b"a", revision=2),
    get(b"a", revision=-1),
    txn(),
    txn([{"key": b64(b"a")}], [op_get(b"a")], [op_get(b"b")]),
]

KEYS = [b"a", b"a\0", b"a\xff", b"ab", b"b", b"\0", b"\xff", b"c/1", b"c/2", b"c0", b"k" * 600]
READS = [
    *(put(key, b"value of %d" % number) for number, key in enumerate(KEYS)),
    put(b"a", b"second"),
    put(b"b", b""),
    delete(b"ab"),
    put(b"ab", b"again"),
    *(get(key) for key in KEYS),
    get(b"\0", b"\0"),
    get(b"a", b"b"),
    get(b"b", b"a"),
    get(b"a", b"a"),
    get(b"c/", b"c0"),
    get(b"b", b"\0"),
    get(b"\xff", b"\0"),
    *(get(b"\0", b"\0", limit=limit) for limit in (1, 3, 12, 100, 0, -1)),
    get(b"\0", b"\0", keys_only=True),
    get(b"\0", b"\0", count_only=True),
    get(b"a", count_only=True),
    get(b"missing", count_only=True),
    get(b"\0", b"\0", count_only=True, limit=2, keys_only=True),
    # Go sorts more than six equal elements in no stable order: these are five.
    *(
        get(b"a", b"c", sort_target=target, sort_order=order, limit=limit)
        for target in ("KEY", "VERSION", "CREATE", "MOD", "VALUE")
        for order in ("NONE", "ASCEND", "DESCEND")
        for limit in (0, 2)
    ),
    get(b"a", b"c", sort_target="VALUE", sort_order="DESCEND", keys_only=True),
    *(
        get(b"\0", b"\0", **{bound: value, "limit": limit})
        for bound in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")
        for value in (1, 6, 14, 99)
        for limit in (0, 2)
    ),
    *(get(b"\0", b"\0", revision=revision) for revision in range(19)),
    *(get(b"ab", revision=revision) for revision in range(3, 19)),
    get(b"\0", b"\0", revision=9, limit=3),
    get(b"\0", b"\0", revision=9, count_only=True),
    get(b"\0", b"\0", revision=9, keys_only=True, sort_order="DESCEND"),
    get(b"a", serializable=True),
    post(RANGE, {"key": "YQ==", "rangeEnd": "Yg==", "keysOnly": True, "sortOrder": "DESCEND"}),
    *hash_kvs(0, *range(1, 20)),
]

WRITES = [
    put(b"a", b"1", prev_kv=True),
    put(b"a", b"2", prev_kv=True),
    post(PUT, {"key": "YQ==", "value": "Mw==", "prevKv": True}),
    post(PUT, {"key": "YQ==", "ignore_value": True}),
    get(b"a"),
    put(b"a", b"x", ignore_value=True),
    post(PUT, {"key": "Yg==", "ignore_value": True}),
    post(PUT, {"key": "Yg==", "ignore_lease": True}),
    put(b"a", b"4", ignore_lease=True),
    put(b"a", b"5", lease=1, ignore_lease=True),
    put(b"a", b"5", lease=1),
    put(b"a", b"5", lease="-1"),
    put(b""),
    post(PUT, {"value": "YQ=="}),
    delete(b""),
    delete(b"a", prev_kv=True),
    delete(b"a", prev_kv=True),
    *(put(b"d/%d" % n, b"v") for n in range(5)),
    delete(b"d/1", b"d/4", prev_kv=True),
    delete(b"d/4", b"d/1"),
    delete(b"\0", b"\0"),
    delete(b"\0", b"\0"),
    get(b"\0", b"\0"),
    put(b"long" * 1000, b"v" * 100_000),
    get(b"long" * 1000),
    *hash_kvs(0),
]

COMPARES = [
    {"key": b64(key), "target": target, "result": result, **operand, **end}
    for key in (b"a", b"missing")
    for end in ({}, {"range_end": b64(b"c")})
    for target, operand in (
        ("VERSION", {"version": 2}),
        ("VERSION", {}),
        ("CREATE", {"create_revision": "2"}),
        ("CREATE", {"create_revision": 0}),
        ("MOD", {"mod_revision": 3}),
        ("VALUE", {"value": b64(b"two")}),
        ("VALUE", {}),
        ("LEASE", {"lease": 0}),
        ("LEASE", {"lease": 5}),
        ("MOD", {"version": 3}),
    )
    for result in ("EQUAL", "NOT_EQUAL", "GREATER", "LESS")
]
MANY = [op_get(b"a")] * 129
TXNS = [
    put(b"a", b"one"),
    put(b"a", b"two"),
    put(b"b", b"b"),
    *(txn([compare], [op_get(b"a")], [op_get(b"b")]) for compare in COMPARES),
    txn(
        [],
        [op_put(b"c", b"1"), op_get(b"c"), op_delete(b"a"), op_get(b"a"), op_put(b"d", b"2", prev_kv=True)],
    ),
    txn([], [op_delete(b"nothing"), op_get(b"c")]),
    txn([], [op_get(b"c"), op_put(b"e"), op_get(b"\0", b"\0")]),
    txn(
        [{"key": b64(b"c"), "target": "CREATE", "create_revision": 0}],
        [op_put(b"no")],
        [op_txn([], [op_put(b"f")])],
    ),
    txn([], [op_put(b"g"), op_txn([{"key": b64(b"g"), "version": 1}], [op_get(b"g")], [op_get(b"missing")])]),
    txn([], [op_txn([], [op_txn([], [op_put(b"deep"), op_get(b"deep")])]), op_get(b"deep")]),
    txn([], [op_put(b"h"), op_put(b"h")]),
    txn([], [op_put(b"h"), op_delete(b"h")]),
    txn([], [op_delete(b"g", b"i"), op_put(b"h")]),
    txn([], [op_delete(b"a", b"\0"), op_put(b"h")]),
    txn([], [op_put(b"m")], [op_put(b"m")]),
    txn([], [op_txn([], [op_put(b"n")], [op_put(b"n")])]),
    txn([], [op_txn([], [op_put(b"n")]), op_txn([], [op_put(b"n")])]),
    txn([], [op_txn([], [op_put(b"n")]), op_put(b"n")]),
    txn([], [op_txn([], [op_delete(b"n")]), op_put(b"n")]),
    txn([], [op_txn([], [op_put(b"n")], [op_delete(b"n")])]),
    txn([], [op_delete(b"n"), op_delete(b"a", b"z")]),
    txn([], [], [op_put(b"p"), op_put(b"p")]),
    txn([], MANY),
    txn([], MANY[:128]),
    txn([{"key": "YQ=="}] * 129),
    txn([], [], MANY),
    txn([], [op_txn([], MANY[:127])]),
    txn([], [op_txn([], MANY[:128])]),
    txn([], [op_get(b"a"), op_txn([], MANY[:127])]),
    txn([{"key": ""}]),
    txn([], [op_get(b"")]),
    txn([], [op_put(b"")]),
    txn([], [op_delete(b"")]),
    txn([], [{}]),
    txn([], [{"request_lease": {}}]),
    txn([], [op_put(b"q"), op_get(b"a", revision=99)]),
    txn([], [op_put(b"q"), op_get(b"a", revision=3)]),
    txn([], [op_get(b"a", revision=3)]),
    txn([], [op_get(b"a", revision=99)]),
    txn([], [op_put(b"q", lease=7)]),
    txn([], [op_txn([], [op_put(b"q2"), {"request_put": {"key": b64(b"absent"), "ignore_value": True}}])]),
    txn([], [{"request_put": {"key": b64(b"q"), "ignore_value": True, "prev_kv": True}}]),
    get(b"q2"),
    txn([], [op_delete(b"\0", b"\0", prev_kv=True)]),
    get(b"\0", b"\0"),
    *hash_kvs(0, 5, 9),
]

COMPACTIONS = [
    put(b"a", b"1"),
    put(b"a", b"2"),
    put(b"b", b"1"),
    delete(b"a"),
    put(b"a", b"3"),
    delete(b"b"),
    put(b"c", b"1"),
    *hash_kvs(0, *range(1, 10)),
    *compactions(3),
    *compactions(3, 2, 0, -1, 99),
    *(get(b"\0", b"\0", revision=revision) for revision in range(9)),
    *hash_kvs(0, *range(1, 10)),
    txn([], [op_get(b"a", revision=2)]),
    txn([], [op_put(b"d"), op_get(b"a", revision=2)]),
    txn([], [op_put(b"d"), op_get(b"a", revision=-1)]),
    *compactions(5, physical=True),
    *hash_kvs(0, *range(1, 10)),
    *compactions(7, physical=True),
    *hash_kvs(0, *range(1, 10)),
    *(get(b"\0", b"\0", revision=revision) for revision in range(9)),
    *compactions(8),
    delete(b"\0", b"\0"),
    *compactions(9, physical=True),
    *hash_kvs(0, 9),
    put(b"a", b"new life"),
    get(b"a"),
    *hash_kvs(0),
]

BAD_JSON = [
    Request(RANGE, body)
    for body in (
        b"",
        b" ",
        b"{}",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b'{"key"',
        b'{"key":',
        b'{"key":"YQ=="',
        b'{"key":"YQ==",}',
        b'{"key":"YQ=="}x',
        b'{"key":"YQ=="}{"key":"Yg=="}',
        b'  {"key":"YQ=="}  ',
        b'{"key":1}',
        b'{"key":"!!"}',
        b'{"key":"YQ="}',
        b'{"key":"Y"}',
        b'{"key":"="}',
        b'{"key":"YQ==="}',
        b'{"key":"Y==="}',
        b'{"key":"YQ==YQ=="}',
        b'{"key":"YR=="}',
        b'{"key":"YQ==\\n"}',
        b'{"key":"Y\\nQ=="}',
        b'{"key":null}',
        b'{"key":true}',
        b'{"key":{}}',
        b'{"key":["YQ=="]}',
        b'{"key":[89,81]}',
        b'{"key":[89,300]}',
        b'{"key":[1.5]}',
        b'{"key":"YQ==","key":"Yg=="}',
        b'{"key":"YQ==","limit":"x"}',
        b'{"key":"YQ==","limit":1.5}',
        b'{"key":"YQ==","limit":"1.5"}',
        b'{"key":"YQ==","limit":1.0}',
        b'{"key":"YQ==","limit":9223372036854775808}',
        b'{"key":"YQ==","limit":"9223372036854775807"}',
        b'{"key":"YQ==","limit":-1}',
        b'{"key":"YQ==","limit":""}',
        b'{"key":"YQ==","limit":" 1"}',
        b'{"key":"YQ==","limit":"1x"}',
        b'{"key":"YQ==","limit":"-"}',
        b'{"key":"YQ==","limit":"null"}',
        b'{"key":"YQ==","limit":"true"}',
        b'{"key":"YQ==","limit":true}',
        b'{"key":"YQ==","limit":[]}',
        b'{"key":"YQ==","limit":-}',
        b'{"key":"YQ==","limit":1.}',
        b'{"key":"YQ==","limit":1e}',
        b'{"key":"YQ==","limit":01}',
        b'{"key":"YQ==","limit":+1}',
        b'{"key":"YQ==","serializable":1}',
        b'{"key":"YQ==","serializable":"true"}',
        b'{"key":"YQ==","sort_order":"descend"}',
        b'{"key":"YQ==","sort_order":1}',
        b'{"key":"YQ==","sort_order":1.5}',
        b'{"key":"YQ==","sort_order":"<&>"}',
        b'{"key":"YQ==","sort_order":99999999999}',
        b'{"key":"YQ==","sort_order":null}',
        b'{"key":"YQ==","sort_order":[]}',
        b'{"key":"YQ==","unknown":{"a":[1]}}',
        b'{"KEY":"YQ=="}',
        b"{'key':1}",
        b'{"key":"\\ud800"}',
        b'{"key":NaN}',
        b"nul",
        b"tru",
        b'{"a":tru}',
        b'{"key":"a\tb"}',
        b'{"key":"\\x"}',
        b'{"key":"\\u12"}',
        b'{"key":"\\u12g4"}',
        b'{"key" "YQ=="}',
        b'{"key":"YQ==" "x":1}',
        b"{,}",
        b"[1,]",
        b'{"a":[1 2]}',
        b"\xef\xbb\xbf{}",
        b"\xff",
        b"\x00",
        b"\x80",
        b'{"key":"\xff"}',
        b'{"key":"YQ==","\xff":1}',
        b"[" * 20000,
        b'{"a":' + b"[" * 20000,
        b'{"a":' * 11000,
        b'"' + b"a" * 5000,
        b'{"key":"' + b"YQ==" * 20000 + b'"}',
    )
]
BAD_TXNS = [
    Request(TXN, body)
    for body in (
        b'{"compare":1}',
        b'{"compare":[1]}',
        b'{"compare":[null],"success":[{}]}',
        b'{"compare":{}}',
        b'{"success":[{"request_put":1}]}',
        b'{"success":[{"request_put":null}]}',
        b'{"success":[[]]}',
        b'{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}',
        b'{"success":[{"request_range":{"key":"YQ=="},"request_put":{"key":"YQ=="}}]}',
        b'{"success":[{"requestPut":{"key":"YQ==","value":"Yg=="}}]}',
        b'{"success":[{"request_txn":{}}]}',
        b'{"compare":[{"key":"YQ==","version":1,"mod_revision":5}]}',
        b'{"compare":[{"key":"YQ==","target":"VALUE","version":"1","value":"Yg=="}]}',
        b'{"compare":[{"key":"YQ==","target":9,"result":9}]}',
        b'{"compare":[{"key":"YQ==","target":"NONE"}]}',
        b'{"compare":[{"key":"YQ==","target":"MOD","mod_revision":{}}]}',
        b'{"compare":[{"key":"YQ==","createRevision":"1","target":"CREATE"}]}',
    )
]

HTTP = [
    Request(path, b"{}", method)
    for path in (
        RANGE,
        "/v3/watch",
        "/v3/nope",
        "/v3/",
        "/nope",
        "/v3beta/kv/range",
        "/v3alpha/kv/range",
        "/v3/kv/range/",
        "/v3/KV/range",
        "/v2/keys",
        "/version",
        "/health",
    )
    for method in ("POST", "GET", "PUT", "DELETE", "OPTIONS")
    if not (path == "/v3/watch" and method == "POST") and not (path == "/health" and method == "GET")
] + [
    Request("/health", b"", "GET"),
    Request("/version", b"", "GET"),
    Request(RANGE + "?x=1", b'{"key":"YQ=="}'),
    Request(RANGE, b'{"key":"YQ=="}', headers=(("Content-Type", "application/x-www-form-urlencoded"),)),
    Request(RANGE, b'{"key":"YQ=="}', headers=(("Content-Type", "text/plain"),)),
    Request("/v3/maintenance/status", b"{}"),
    Request("/v3/maintenance/status", b"{bad"),
    Request("/v3/maintenance/hash", b""),
    Request("/v3/cluster/member/list", b"{}"),
    Request("/v3/cluster/member/list", b'{"linearizable":true}'),
    Request("/v3/cluster/member/list", b'{"linearizable":1}'),
    put(b"big", b"x" * 1_500_000),
    put(b"big", b"x" * 1_600_000),
    get(b"big", keys_only=True),
]

# Short leases come last: they run out while others are asked for.
LEASES_ALONE = [
    post(LEASES, {}),
    Request(LEASES, b""),
    Request(LEASES, b"{"),
    Request(LEASES, b"[]"),
    grant(7),
    grant(7),
    grant(-9, 9_000_000_000),
    grant(11, 9_000_000_001),
    grant(7, 9_000_000_001),
    grant(12, 9_223_372_036_854_775_807),
    *(
        Request(GRANT, b'{"TTL":500,"ID":%b}' % number)
        for number in (
            b'"13"',
            b"14.0",
            b"1.5",
            b'"1.5"',
            b'"0x10"',
            b"9223372036854775807",
            b"9223372036854775808",
            b'"9223372036854775808"',
            b'"-9223372036854775808"',
            b'"-9223372036854775809"',
            b'""',
            b'" 15"',
            b"true",
            b"[]",
            b"{}",
            b"null",
            b'"null"',
        )
    ),
    *(
        Request(GRANT, b'{"ID":20,"TTL":%b}' % number)
        for number in (b'"x"', b"1.5", b"9223372036854775808", b'"-9223372036854775809"', b"true", b"[500]")
    ),
    Request(GRANT, b'{"TTL":"x","ID":"y"}'),
    Request(GRANT, b'{"ID":21,"TTL":500,"unknown":[1]}'),
    Request(GRANT, b'{"ID":22,"TTL":500}x'),
    Request(GRANT, b"{"),
    Request(GRANT, b"[]"),
    post(GRANT, {"TTL": 500}),
    post(GRANT, {"TTL": 500, "ID": 0}),
    post(GRANT, {"TTL": 500, "id": 23}),
    post(LEASES, {}),
    post("/v3/kv/lease/leases", {}),
    post("/v3beta/kv/lease/leases", {}),
    *time_to_live(7, -9, 99, 0),
    *(
        Request(TIMETOLIVE, body)
        for body in (
            b"",
            b"{}",
            b'{"ID":"7"}',
            b'{"ID":7,"keys":1}',
            b'{"ID":7,"keys":"true"}',
            b'{"ID":true}',
            b'{"id":7}',
            b"[]",
            b"{",
            b'{"ID":9223372036854775808}',
        )
    ),
    post("/v3/kv/lease/timetolive", {"ID": 7}),
    post("/v3beta/lease/timetolive", {"ID": 7}),
    *(keep_alive(*leases) for leases in ((7,), (-9,), (99,), (0,), (7, 99, -9), (99, 7, 7))),
    # What is broken comes second: README.md.
    *(
        Request(KEEPALIVE, body)
        for body in (
            b"",
            b" ",
            b"{}",
            b"null",
            b'{"ID":"7"}',
            b'{"ID":null}',
            b'{"id":7}',
            b'{"ID":7}{"ID":99}',
            b'{"ID":7} x',
            b'{"ID":7}{"ID":"x"}{"ID":7}',
            b'{"ID":7}[]',
            b'{"ID":7}{',
            b'{"ID":7},{"ID":7}',
            b'{"ID":7,"a":{"b":[{}]}}{"ID":7,"a":"}"}',
        )
    ),
    post("/v3beta/lease/keepalive", {"ID": 7}),
    post("/v3/kv/lease/keepalive", {"ID": 7}),
    post("/v3/kv/lease/grant", {"ID": 24}),
    *(
        Request(path, b"{}", method)
        for path in (GRANT, KEEPALIVE, "/v3/kv/lease/revoke")
        for method in ("GET", "PUT", "DELETE", "OPTIONS")
    ),
    revoke(7),
    revoke(7),
    revoke(0),
    *(Request(REVOKE, body) for body in (b"", b"{", b'{"ID":"x"}', b'{"ID":1.5}', b'{"id":-9}')),
    post("/v3/kv/lease/revoke", {"ID": 13}),
    post("/v3beta/kv/lease/revoke", {"ID": "-9223372036854775808"}),
    *time_to_live(7),
    keep_alive(7),
    grant(7, 400),
    *time_to_live(7),
    post(LEASES, {}),
    *(grant(100 + ttl, ttl) for ttl in (3, 2, 1, 0, -1)),
    Request(GRANT, b'{"ID":"120"}'),
    Request(GRANT, b""),
]

LEASED = [
    put(b"a", b"1", lease=1),
    *(grant(lease) for lease in (1, 2, -3)),
    put(b"a", b"1", lease=1),
    post(PUT, {"key": b64(b"b"), "value": b64(b"1"), "lease": "1"}),
    put(b"c", b"1", lease=-3, prev_kv=True),
    put(b"d", b"1"),
    *time_to_live(1, 2, -3),
    get(b"\0", b"\0"),
    get(b"a", keys_only=True),
    # Another lease, the same, none; and what keeps it.
    put(b"a", b"2", lease=2, prev_kv=True),
    put(b"a", b"3", lease=2, prev_kv=True),
    put(b"a", b"4", ignore_lease=True, prev_kv=True),
    post(PUT, {"key": b64(b"a"), "ignoreLease": True, "value": b64(b"5")}),
    post(PUT, {"key": b64(b"a"), "ignore_lease": True, "ignore_value": True}),
    post(PUT, {"key": b64(b"a"), "ignore_value": True, "lease": 1}),
    post(PUT, {"key": b64(b"b"), "ignore_value": True}),
    put(b"d", b"2", ignore_lease=True),
    put(b"e", b"1", ignore_lease=True),
    put(b"a", b"5", ignore_lease=True, lease=1),
    put(b"a", b"5", lease=99),
    put(b"a", b"5", lease=-1),
    put(b"a", b"5", lease="9223372036854775807"),
    get(b"\0", b"\0"),
    *time_to_live(1, 2, -3),
    put(b"b", b"2", lease=2),
    delete(b"b", prev_kv=True),
    put(b"b", b"3"),
    *time_to_live(2),
    # In transactions: all or nothing, and only the branch that is taken.
    txn([], [op_put(b"f", b"1", lease=1), op_put(b"g", b"1", lease=2), op_put(b"h", b"1")]),
    txn([], [op_put(b"f", b"2", lease=99)]),
    txn([], [op_put(b"h", b"2"), op_put(b"f", b"2", lease=99)]),
    txn([], [op_put(b"h", b"2")], [op_put(b"f", b"2", lease=99)]),
    txn([{"key": b64(b"h"), "version": 9}], [op_put(b"f", b"2", lease=99)], [op_get(b"h")]),
    txn([], [op_put(b"h", b"3"), op_txn([], [op_put(b"f", b"2", lease=99)])]),
    txn([], [op_txn([], [op_put(b"h", b"4", lease=-3)], [op_put(b"f", b"2", lease=99)])]),
    txn([], [{"request_put": {"key": b64(b"f"), "value": b64(b"3"), "ignore_lease": True, "prev_kv": True}}]),
    txn([], [{"request_put": {"key": b64(b"none"), "ignore_lease": True}}]),
    txn([], [op_put(b"f", b"4", lease=1, ignore_lease=True)]),
    txn([], [op_delete(b"g"), op_get(b"g")]),
    *time_to_live(1, 2, -3),
    *(
        txn([{"key": b64(key), "target": "LEASE", "result": result, "lease": lease, **end}], [op_get(key)])
        for key, end in (
            (b"a", {}),
            (b"b", {}),
            (b"c", {}),
            (b"missing", {}),
            (b"a", {"range_end": b64(b"c")}),
            (b"e", {"range_end": b64(b"f")}),
        )
        for result in ("EQUAL", "NOT_EQUAL", "GREATER", "LESS")
        for lease in (0, 1, -3)
    ),
    txn([{"key": b64(b"a"), "target": "LEASE"}], [op_get(b"a")]),
    txn([{"key": b64(b"a"), "target": 4, "lease": "1"}], [op_get(b"a")]),
    *hash_kvs(0),
    # All keys of a lease go in one revision, those of another stay.
    revoke(1),
    get(b"\0", b"\0"),
    *time_to_live(1, 2, -3),
    put(b"a", b"6", lease=1),
    revoke(2),
    revoke(-3),
    revoke(-3),
    get(b"\0", b"\0"),
    *(get(b"\0", b"\0", revision=revision) for revision in range(2, 25, 3)),
    *hash_kvs(0, *range(2, 25, 3)),
    # A lease of the same id begins without keys.
    grant(1),
    *time_to_live(1),
    put(b"long" * 600, b"1", lease=1),
    put(b"long" * 600 + b"x", b"1", lease=1),
    *time_to_live(1),
    delete(b"long" * 600),
    *time_to_live(1),
    *compactions(10, physical=True),
    revoke(1),
    get(b"\0", b"\0"),
    *hash_kvs(0),
]

SEQUENCES = {
    "empty store": EMPTY_STORE,
    "reads": READS,
    "writes": WRITES,
    "transactions": TXNS,
    "compactions": COMPACTIONS,
    "bad JSON": BAD_JSON,
    "bad transactions": BAD_TXNS,
    "HTTP": HTTP,
    "leases": LEASES_ALONE,
    "leased keys": LEASED,
}
