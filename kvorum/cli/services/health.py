"""How a service is, judged by its checks: pure. It is well when so many checks in a row have passed, and
not when so many in a row have failed. At first it is not: nobody has seen it work."""

from __future__ import annotations


class Health:
    def __init__(self, failures: int, successes: int) -> None:
        self._failures, self._successes = failures, successes
        self._in_a_row = 0
        self.is_well = False

    def checked(self, passed: bool) -> bool:
        """Whether that has changed how it is."""
        if passed == self.is_well:
            self._in_a_row = 0
            return False
        self._in_a_row += 1
        if self._in_a_row < (self._successes if passed else self._failures):
            return False
        self.is_well, self._in_a_row = passed, 0
        return True
