"""Run as a program: becomes the command that ``kvorum lock`` or ``kvorum service register`` runs, tied to
their life.

    python tied.py PID COMMAND…

If the process PID, which has started this one, is killed and cannot see to it, the kernel kills the command:
the lock's or the service's lease ends by itself then, and nobody may go on as if he held it. What the command
has started itself is not reached by that, and on other systems than Linux neither is the command.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it was killed before this was said
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"Error: command {command[0]!r} cannot be run: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
