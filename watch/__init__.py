"""From applied events to ordered, resumable streams.

``hub.Hub.publish`` is called after every applied change; ``hub.stream()`` is one client's stream
of watches, which a reader reads (``next``) or which writes itself to a sink (``push_to``, see
``watch.feed``). A watcher is in one of two states:

* *synced*: it has, in its stream's queue or behind it, everything up to the current revision,
  and is told of each new one as it is published;
* *unsynced*: it begins in the past, or its stream's queue was full. It remembers one number, the
  next revision it needs, and catches up from the store's history when its reader asks for more.

Promises: a watcher gets every event of its range from its start on, once, in order of
revision, all events of a revision together; its ``created`` comes before them and nothing
after its ``canceled``. A reader that stops reading costs one bounded queue and delays
nobody. If history was compacted before a watcher got to read it, the watcher is cancelled
with ``compact_revision``: the client must list anew and watch from there.

Not promised: that a watch on a lagging server is up to date.
"""
