"""The caching allocator with the one act of CUDA graphs that no dry run makes: the end of a private pool's owner."""

from __future__ import annotations

from typing import Any

from memscope.replay.caching.allocator import CachingAllocator


class PoolReleasingAllocator(CachingAllocator):
    """The caching allocator, whose private pools can be released as upstream's ``releasePool`` does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._released: set[tuple[int, int]] = set()
        super().__init__(*arguments, **options)

    def release_pool(self, pool: tuple[int, int]) -> None:
        """Say that a private pool's owner is gone: reclaims may now give its unused memory back."""
        self._released.add(pool)
        self._mark_released()

    def _pair(self, stream: int, pool: tuple[int, int]) -> int:
        pair = super()._pair(stream, pool)
        self._mark_released()
        return pair

    def _mark_released(self) -> None:
        released = {self._pools.get(pool) for pool in self._released}
        for pool in self._allocator.pools:
            pool.is_releasable = pool.is_releasable or pool.pool_id in released
