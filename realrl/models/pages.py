"""The holders of a key/value cache's pages."""

from __future__ import annotations

from collections.abc import Iterable


class PagePool:
    """Pages by number. A page may have several holders, and is free when the last one releases it."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._holders = [0] * num_pages

    @property
    def num_free(self) -> int:
        """The number of pages without a holder."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Return `count` pages with one holder; the caller knows that there are as many."""
        assert count <= len(self._free), f"{count} pages asked for, {len(self._free)} are free"
        pages = []
        for _ in range(count):
            page = self._free.pop()
            self._holders[page] = 1
            pages.append(page)
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """Add a holder to pages that have one."""
        for page in pages:
            assert self._holders[page], f"page {page} is free"
            self._holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Remove a holder; pages without another one become free."""
        for page in pages:
            num_left = self._holders[page] - 1
            assert num_left >= 0, f"page {page} was released more often than held"
            self._holders[page] = num_left
            if num_left == 0:
                self._free.append(page)
