"""The server: HTTP in and out, and the composition root that wires everything together.

    fast_lane / http ─► handlers ─► schema (JSON ⇄ requests) ─► service (the rules) ─► driver, state, hub

``service`` has one method per operation and no HTTP; ``errors`` is the one table of what can go
wrong; ``node`` opens and closes everything in order; ``server`` is ``kvorum serve``.
"""
