"""Load on a store, and how it bears it: what ``kvorum bench`` and ``kvorum check perf`` do.

    answers.py       pure: answers of HTTP/1.1, out of bytes as they come
    connection.py    one connection, one request at a time, as cheap as asyncio allows
    requests.py      pure: what is sent
    measuring.py     pure: from durations to figures
    running.py       so many connections, for so long, at such a rate
    watchers.py      many watches, and how long changes take to reach them

Why not the library's clients: they cost more than the servers. On one machine a put cost 0.08 ms of processor
time here, 0.46 ms with threads and ``Client``, 0.7 ms with ``AsyncClient``; with 500 connections there were
2,800 puts a second rather than 1,000 and 330. What is measured should be the store.
"""
