"""What can be told of a lock that is held, or of a leader: the same in both shells."""

from __future__ import annotations

from kvorum.errors import LeaseLost
from kvorum.messages import as_bytes
from kvorum.plans import Core
from kvorum.recipes.line import Standing
from kvorum.types import Key


class Hold:
    """``_standing`` is there from when the place was first until it is given up."""

    def __init__(self, core: Core, name: Key, ttl: int) -> None:
        self.name = as_bytes(name)
        self.ttl = ttl
        self._core = core
        self._standing: Standing | None = None

    @property
    def key(self) -> bytes:
        """Which stands for the hold. Raises LeaseLost where there is none."""
        return self._stand().place.key

    @property
    def token(self) -> int:
        """The fencing token: of two who ever held it, the later has the greater one. Raises LeaseLost where
        nothing is held; where it was lost, it still is what it was."""
        return self._stand().place.token

    @property
    def revision(self) -> int:
        """The store's, when it became ours. Raises LeaseLost where nothing is held."""
        return self._stand().revision

    @property
    def sure_until(self) -> float:
        """Of ``kvorum.clock``. Until then nobody else holds it, unless somebody has deleted the key."""
        return self._standing.sure_until if self._standing else 0.0

    @property
    def is_held(self) -> bool:
        """False also where that is not certain any more, since the lease could not be renewed."""
        standing = self._standing
        return standing is not None and standing.lost is None and self._core.clock() < standing.sure_until

    def check(self) -> None:
        """Raises LeaseLost unless it is held for certain."""
        standing = self._stand()
        if not self.is_held:
            why = standing.lost or "the lease was not renewed in time"
            raise LeaseLost(f"{self.name!r} is lost: {why}")

    def _stand(self) -> Standing:
        if self._standing is None:
            raise LeaseLost(f"{self.name!r} is not held")
        return self._standing

    def _begin(self) -> Standing:
        if self.is_held:
            raise RuntimeError(f"{self.name!r} is held already: release it first")
        return Standing(self._core, self.name, self.ttl)
