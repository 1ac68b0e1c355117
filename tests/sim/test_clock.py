"""A node's clock, and what it showed."""

from __future__ import annotations

from tests.sim.clock import LocalClock, Queue


def test_what_a_clock_showed_can_be_looked_up() -> None:
    """It runs at half speed from 2 on, jumps by 10 at 4, and stands from 6 on."""
    queue = Queue()
    clock = LocalClock(queue)
    queue.now = 2.0
    clock.set_rate(0.5)
    queue.now = 4.0
    assert clock.now() == 3.0
    clock.jump(10.0)
    assert clock.now() == 13.0
    queue.now = 6.0
    clock.set_rate(0.0)
    queue.now = 9.0
    assert clock.now() == 14.0
    shown = [clock.at(virtual) for virtual in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)]
    assert shown == [0.0, 1.0, 2.0, 2.5, 3.0, 13.5, 14.0, 14.0]
