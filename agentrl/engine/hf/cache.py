"""The key-value cache of the rows in flight.

What comes in: new keys and values of some rows at some positions. What goes out: views of all that those rows hold,
read without a gather, because rows stand side by side and from position 0. Knows no requests, tokens or models; which
row belongs to whom is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

ALIGNMENT = 8  # positions; masks of such lengths fit every CUDA attention kernel without a copy
FIRST_ROWS = 8  # rows of the first buffer; it doubles from there
FIRST_POSITIONS = 64


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one position of one row holds."""

    layers: int
    heads: int  # of keys and values
    head_dim: int


@dataclass(frozen=True, slots=True)
class Writes:
    """Where the new keys and values [N, G, T, D] of one forward pass go.

    Entry i of the arrays moves query `columns[i]` of the window's row `rows[i]` to `positions[i]`. With T = 1 every row
    writes its only query and `columns` is not read.
    """

    rows: torch.Tensor  # [W]
    columns: torch.Tensor | None  # [W]
    positions: torch.Tensor  # [W]


class KeyValueRows:
    """One buffer [layers, 2, rows, heads, positions, head_dim] that grows by doubling. Index 1 of axis 1 is the values.

    The buffer starts as zeros: what is masked away is multiplied by 0, which only removes it if it is finite.
    """

    def __init__(
        self, shape: CacheShape, max_rows: int, max_positions: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._shape = shape
        self._max_rows = max_rows
        self._max_positions = aligned(max_positions)
        self._device = device
        self._dtype = dtype
        self._layers = [_WindowLayer() for _ in range(shape.layers)]
        self._buffer = self._allocate(0, 0)
        self.cache = Cache(layers=self._layers)  # what the model is handed

    def reserve(self, rows: int, positions: int) -> None:
        """Make room for `rows` rows of `positions` positions, keeping what is there."""
        have_rows, have_positions = self._buffer.shape[2], self._buffer.shape[4]
        if rows <= have_rows and positions <= have_positions:
            return
        want_rows = _doubled(max(have_rows, FIRST_ROWS), rows, self._max_rows)
        want_positions = _doubled(max(have_positions, FIRST_POSITIONS), positions, self._max_positions)
        buffer = self._allocate(want_rows, want_positions)
        buffer[:, :, :have_rows, :, :have_positions] = self._buffer
        self._buffer = buffer

    def aim(self, first: int, last: int, positions: int, writes: Writes) -> None:
        """Make `cache` stand for rows first..last-1 and their first `positions` positions, for one forward pass."""
        window = self._buffer[:, :, first:last, :, :positions]
        for layer, (keys, values) in zip(self._layers, window.unbind(0), strict=True):
            layer.aim(keys, values, writes)

    def read(self, row: int, length: int) -> torch.Tensor:
        """Return a copy of a row's first `length` positions: [layers, 2, heads, length, head_dim]."""
        return self._buffer[:, :, row, :, :length].clone()

    def write(self, row: int, prefix: torch.Tensor) -> None:
        """Put a copy made by `read` at the start of a row."""
        self._buffer[:, :, row, :, : prefix.shape[3]] = prefix

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions to another row."""
        self._buffer[:, :, target, :, :length] = self._buffer[:, :, source, :, :length]

    def clear(self, first: int) -> None:
        """Wipe the rows from `first` on. With 0 the next buffer has the size of a fresh engine's."""
        if first == 0:
            self._buffer = self._allocate(0, 0)
        else:
            self._buffer[:, :, first:] = 0

    def _allocate(self, rows: int, positions: int) -> torch.Tensor:
        size = (self._shape.layers, 2, rows, self._shape.heads, positions, self._shape.head_dim)
        return torch.zeros(size, device=self._device, dtype=self._dtype)


class _WindowLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped here
    """One layer of the window that `KeyValueRows.aim` chose, in the form transformers' models ask for."""

    def aim(self, keys: torch.Tensor, values: torch.Tensor, writes: Writes) -> None:
        self.keys, self.values, self.writes = keys, values, writes  # [N, G, L, D] twice
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the buffer is `KeyValueRows`' own."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new keys and values [N, G, T, D]; return all of the window's."""
        where = (self.writes.rows, slice(None), self.writes.positions)
        self.keys[where] = self._chosen(key_states)
        self.values[where] = self._chosen(value_states)
        return self.keys, self.values

    def _chosen(self, states: torch.Tensor) -> torch.Tensor:
        """Return what is written: [W, G, D]."""
        if self.writes.columns is None:
            return states.squeeze(2)
        return states[self.writes.rows, :, self.writes.columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length(), 0

    def get_seq_length(self) -> int:
        return int(self.keys.shape[2])

    def get_max_length(self) -> int:
        return -1


def aligned(positions: int) -> int:
    """Round up to a multiple of `ALIGNMENT`."""
    return -(-positions // ALIGNMENT) * ALIGNMENT


def _doubled(size: int, wanted: int, limit: int) -> int:
    """Double `size` until it holds `wanted`, but go no further than `limit`."""
    while size < wanted:
        size *= 2
    return max(min(size, limit), wanted)
