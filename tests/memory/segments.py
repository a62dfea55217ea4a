"""A growing segment of PyTorch's CUDA allocator, replayed where there is no GPU: which place it gives, what it keeps.

The rules are those of c10/cuda/CUDACachingAllocator.cpp under expandable_segments:True, for tensors above 1 MiB: the
smallest free place that is large enough, else the lowest address from which pages can be mapped; and only pages that
are free as a whole are given back.
"""

from __future__ import annotations

MIB = 2**20
PAGE = 20 * MIB
FREE, USED, UNMAPPED = "free", "used", "unmapped"


class Segment:
    """One segment of a GPU that never gets full. Blocks are [start, bytes, state], in order and without gaps."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, int, str]] = [(0, 10_000 * PAGE, UNMAPPED)]

    def allocate(self, size: int) -> int:
        """The place that a tensor of so many bytes gets."""
        size = -(-size // 512) * 512
        fitting = [(block[1], block[0], at) for at, block in enumerate(self.blocks) if block[2] == FREE]
        at = min((one for one in fitting if one[0] >= size), default=(0, 0, -1))[2]
        at = at if at >= 0 else self._map(max(size, PAGE) if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB)
        start, length, _ = self.blocks[at]
        self._replace(at, at + 1, [(start, size, USED), (start + size, length - size, FREE)])
        return start

    def free(self, start: int) -> None:
        """Free what lies at a place."""
        at = next(at for at, block in enumerate(self.blocks) if block[0] == start and block[2] == USED)
        self._replace(at, at + 1, [(start, self.blocks[at][1], FREE)])

    def give_back(self) -> None:
        """torch.cuda.empty_cache"""
        for at in reversed(range(len(self.blocks))):
            start, size, state = self.blocks[at]
            low, high = -(-start // PAGE) * PAGE, (start + size) // PAGE * PAGE
            if state == FREE and high > low:
                rest = [(start, low - start, FREE), (low, high - low, UNMAPPED), (high, start + size - high, FREE)]
                self._replace(at, at + 1, rest)

    def bytes(self, *states: str) -> int:
        """The bytes of blocks in some states."""
        return sum(size for _, size, state in self.blocks if state in states)

    def _map(self, size: int) -> int:
        """Map pages where so many bytes have room, at the lowest place; the number of the block, which is free then."""
        for at, block in enumerate(self.blocks):
            if block[2] != UNMAPPED:
                continue
            first = at - 1 if at and self.blocks[at - 1][2] == FREE else at
            last, found = first, 0
            while found < size and last < len(self.blocks) and self.blocks[last][2] != USED:
                found += self.blocks[last][1]
                last += 1
            if found >= size:
                return self._mapped(first, last, size, found)
        raise AssertionError("the segment is never full")

    def _mapped(self, first: int, last: int, size: int, found: int) -> int:
        start, (lowest, length, state) = self.blocks[first][0], self.blocks[last - 1]
        missing = size - (found - length)  # of the last block
        taken = min(length, -(-missing // PAGE) * PAGE) if state == UNMAPPED else length
        mapped = (start, lowest + taken - start, FREE)
        self._replace(first, last, [mapped, (lowest + taken, length - taken, UNMAPPED)])
        return next(at for at, block in enumerate(self.blocks) if block[0] <= start < block[0] + block[1])

    def _replace(self, first: int, last: int, blocks: list[tuple[int, int, str]]) -> None:
        """Put blocks in the place of others; neighbours that are alike and unused become one."""
        self.blocks[first:last] = [block for block in blocks if block[1]]
        at = max(first - 1, 0)
        while at + 1 < min(len(self.blocks), first + len(blocks) + 1):
            (start, size, state), (_, more, other) = self.blocks[at], self.blocks[at + 1]
            if state == other != USED:
                self.blocks[at : at + 2] = [(start, size + more, state)]
            else:
                at += 1
