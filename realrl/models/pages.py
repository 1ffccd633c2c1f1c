"""Who holds which pages of a key/value cache."""

from __future__ import annotations

from collections.abc import Iterable


class PagePool:
    """Pages by number. A page may have several holders, and is free when the last lets go of it."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._holders = [0] * num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Pages for one holder; the caller knows that there are so many."""
        assert count <= len(self._free), f"{count} pages asked for, {len(self._free)} are free"
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One holder more of pages that are held."""
        for page in pages:
            assert self._holders[page], f"page {page} is free"
            self._holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """One holder less."""
        for page in pages:
            self._holders[page] -= 1
            assert self._holders[page] >= 0, f"page {page} was let go of more often than held"
            if not self._holders[page]:
                self._free.append(page)
