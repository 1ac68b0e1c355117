"""Whether the lab's faults are real: datagrams between its namespaces, with and without rules.

Run as a process of its own by ``test_soak``; it makes a lab, and tears it down.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from tests.soak.lab import Lab, enter

_SENDER = """
import socket, sys
source, to, count = sys.argv[1:]
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind((source, 0))
for number in range(int(count)):
    sender.sendto(b"%d" % number, (to, 9))
"""
# Says how many datagrams arrived before the one that ends it.
_RECEIVER = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("", 9))
print("ready", flush=True)
count = 0
while receiver.recv(99) != b"end":
    count += 1
print(count)
"""


async def arrive(lab: Lab, source: str, sender: int, receiver: int, count: int = 20) -> int:
    """How many of ``count`` datagrams from ``source`` get through; the sender 0 is outside."""
    listening = await asyncio.create_subprocess_exec(
        *lab.prefix(receiver), sys.executable, "-c", _RECEIVER, stdout=asyncio.subprocess.PIPE
    )
    assert listening.stdout is not None
    assert await listening.stdout.readline() == b"ready\n"
    command = [sys.executable, "-c", _SENDER, source, f"10.77.0.{receiver}", str(count)]
    sending = await asyncio.create_subprocess_exec(*(lab.prefix(sender) if sender else []), *command)
    assert await sending.wait() == 0
    # The receiver's own address is never cut off from itself.
    end = [sys.executable, "-c", "import socket; socket.socket(2,2).sendto(b'end',('127.0.0.1',9))"]
    ending = await asyncio.create_subprocess_exec(*lab.prefix(receiver), *end)
    assert await ending.wait() == 0
    return int(await listening.stdout.read())


async def check(name: str) -> None:
    lab = Lab(name, 3)
    await lab.set_up()
    n1, n2, relayed, clients = "10.77.0.1", "10.77.0.2", "10.77.1.1", "10.77.0.254"
    assert await arrive(lab, n1, 1, 2) == 20
    await lab.drop(2, [1])
    assert await arrive(lab, n1, 1, 2) == 0, "what n1 sends to n2 is lost"
    assert await arrive(lab, relayed, 0, 2) == 0, "over a relay, too"
    assert await arrive(lab, n2, 2, 1) == 20, "what n2 sends to n1 is not"
    assert await arrive(lab, "10.77.0.3", 3, 2) == 20, "nor what n3 sends to n2"
    assert await arrive(lab, clients, 0, 2) == 20, "nor what clients send"
    await lab.heal(2)
    assert await arrive(lab, n1, 1, 2) == 20
    await lab.drop(2, [1], percent=50)
    assert 20 < await arrive(lab, n1, 1, 2, count=100) < 80
    await lab.heal(2)
    with socket.socket() as probe:  # a relay may connect from the address that stands for n1
        probe.bind((relayed, 0))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(check(sys.argv[2]))
    else:
        sys.exit(enter([], 3, module="tests.soak.probe"))
