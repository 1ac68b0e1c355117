"""Locks, elections, barriers and counters: what several processes agree on with a few keys.

    waiting.py       for what a key tells, while a lease is renewed
    line.py          a place in a line: what a lock and an election are made of
    election.py      what is more in an election: the leader's value, and who leads
    barrier.py       one that is held or open
    party.py         one for a number of parties
    counter.py       a number that many change
    hold.py          what can be told of a lock that is held
    blocking.py      the objects that ``kvorum.Client`` makes
    asynchronous.py  and those of ``kvorum.AsyncClient``

All but the last two decide, as plans, and do no I/O. Keys are those of etcd's concurrency package and of the
server's own lock service, so all of these stand in one line: ``<name>/<lease in hexadecimal>``.
"""
