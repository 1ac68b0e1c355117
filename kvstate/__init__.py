"""The replicated state: keys with all their revisions, the same on every node.

A *revision* is one change of the store; the changes within it are numbered by *sub-revision*.
Each put of a key makes a new version of it; a deletion leaves a *tombstone* and ends the key's
generation. ``compact(r)`` forgets what was replaced before r.

    put a=1   rev 2.0   a: create 2, mod 2, version 1
    put a=2   rev 3.0   a: create 2, mod 3, version 2      2.0 goes to the history of a
    del a     rev 4.0   a: tombstone                       3.0 goes to the history of a
    put a=3   rev 5.0   a: create 5, mod 5, version 1      a new generation

``machine.StateMachine`` applies commands and answers reads; ``backend`` is the map it lives on.
Nothing here reads a clock, draws a random number or knows of consensus.
"""
