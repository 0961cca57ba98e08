"""The two kernels of `emavos.memory.triton_readout`. Imported only at launch, because triton is optional.

`scan` goes once over the memory, tile by tile, and keeps the best cells of each query cell. If there are few
query cells, several programs share the memory. `gather` merges their results and sums the values.
"""

import triton
import triton.language as tl


@triton.jit
def insert(top, places, similarity, start, SLOTS: tl.constexpr, WIDTH: tl.constexpr):
    """Insert the columns of a tile (rows, WIDTH) that beat the smallest entry of `top` (rows, SLOTS).

    Returns the new `top` and `places`. After a few tiles, few columns beat the smallest entry, so inserting
    one column at a time is cheaper than sorting the tile.

    top: the best similarities so far.
    places: memory cell of each entry of top. Column j of this tile is cell start + j.
    """
    slots = tl.arange(0, SLOTS)[None, :]
    columns = tl.arange(0, WIDTH)[None, :]
    best, column = tl.max(similarity, axis=1, return_indices=True)
    least, slot = tl.min(top, axis=1, return_indices=True)
    better = best > least
    while tl.max(better.to(tl.int32), axis=0) > 0:
        replaced = better[:, None] & (slots == slot[:, None])
        top = tl.where(replaced, best[:, None], top)
        places = tl.where(replaced, start + column[:, None], places)
        similarity = tl.where(columns == column[:, None], -float("inf"), similarity)
        best, column = tl.max(similarity, axis=1, return_indices=True)
        least, slot = tl.min(top, axis=1, return_indices=True)
        better = best > least
    return top, places


# the memory grows during a video, so its size compiles nothing anew
@triton.jit(do_not_specialize=["queries", "cells", "cells_per_split"])
def scan(
    query,  # (Ck, P)
    keys,  # (N, Ck)
    norms,  # (N,) of float32: |k|^2
    top,  # (splits, P, SLOTS) of float32, out: similarities, unordered; -inf in unused slots
    places,  # (splits, P, SLOTS) of int32, out: cells of the similarities
    queries,
    cells,
    cells_per_split,  # a multiple of CELLS
    query_stride_c,
    query_stride_p,
    keys_stride_n,
    keys_stride_c,
    scale,  # 1 / sqrt(Ck)
    CHANNELS: tl.constexpr,  # Ck
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,  # TOP_K rounded up to a power of two
    QUERIES: tl.constexpr,  # rows of a tile
    CELLS: tl.constexpr,  # columns of a tile
    STEP: tl.constexpr,  # channels per product
    DTYPE: tl.constexpr,  # dtype of the factors; sums are float32
):
    """Find the TOP_K cells most similar to each query cell, within one share of the memory."""
    split = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    row_used = rows < queries
    slots = tl.arange(0, SLOTS)[None, :]
    channels = tl.arange(0, STEP)
    query_rows = query + rows.to(tl.int64)[:, None] * query_stride_p
    # slots beyond TOP_K are infinite, so nothing is inserted there
    best = tl.where(slots < TOP_K, tl.full((QUERIES, SLOTS), -float("inf"), tl.float32), float("inf"))
    best_cells = tl.zeros((QUERIES, SLOTS), tl.int32)
    if CHANNELS <= STEP:  # the query tile stays in registers
        q_used = row_used[:, None] & (channels < CHANNELS)[None, :]
        q = tl.load(query_rows + channels[None, :] * query_stride_c, q_used, 0.0).to(DTYPE)
    first = split * cells_per_split
    last = tl.minimum(first + cells_per_split, cells)
    for start in range(first, last, CELLS):
        columns = start + tl.arange(0, CELLS)
        column_used = columns < last
        key_columns = keys + columns.to(tl.int64)[None, :] * keys_stride_n
        if CHANNELS <= STEP:
            k_used = (channels < CHANNELS)[:, None] & column_used[None, :]
            k = tl.load(key_columns + channels[:, None] * keys_stride_c, k_used, 0.0).to(DTYPE)
            product = tl.dot(q, k, input_precision="ieee")
        else:
            product = tl.zeros((QUERIES, CELLS), tl.float32)
            for step in range(0, CHANNELS, STEP):
                c = step + channels
                q_used = row_used[:, None] & (c < CHANNELS)[None, :]
                q = tl.load(query_rows + c[None, :] * query_stride_c, q_used, 0.0).to(DTYPE)
                k_used = (c < CHANNELS)[:, None] & column_used[None, :]
                k = tl.load(key_columns + c[:, None] * keys_stride_c, k_used, 0.0).to(DTYPE)
                product = tl.dot(q, k, product, input_precision="ieee")
        norm = tl.load(norms + columns, column_used, 0.0)
        similarity = (2 * product - norm[None, :]) * scale
        similarity = tl.where(row_used[:, None] & column_used[None, :], similarity, -float("inf"))
        best, best_cells = insert(best, best_cells, similarity, start, SLOTS, CELLS)
    out = (split.to(tl.int64) * queries + rows[:, None]) * SLOTS + slots
    tl.store(top + out, tl.where(slots < TOP_K, best, -float("inf")), row_used[:, None])
    tl.store(places + out, best_cells, row_used[:, None])


@triton.jit(do_not_specialize=["queries", "splits", "objects"])
def gather(
    top,  # (splits, P, SLOTS), from `scan`
    places,  # (splits, P, SLOTS)
    values,  # (N, O, Cv)
    out,  # (P, O * Cv), out
    received,  # (N,) of float32; the weights are added if COUNTS
    queries,
    splits,
    values_stride_n,
    values_stride_o,
    values_stride_c,
    objects,  # O
    CHANNELS: tl.constexpr,  # Cv
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,
    COUNTS: tl.constexpr,
    STEP: tl.constexpr,  # columns of `out` per store
):
    """Readout of one query cell: the best cells of all shares, their softmax, and the sum of their values."""
    row = tl.program_id(0).to(tl.int64)
    slots = tl.arange(0, SLOTS)[None, :]
    used = slots < TOP_K
    best = tl.where(used, tl.load(top + row * SLOTS + slots), float("inf"))
    best_places = slots.to(tl.int32)  # index over all shares: share * SLOTS + slot
    for split in range(1, splits):
        candidates = tl.load(top + (split * queries + row) * SLOTS + slots)
        best, best_places = insert(best, best_places, candidates, split * SLOTS, SLOTS, SLOTS)
    cells = tl.load(places + ((best_places // SLOTS) * queries + row) * SLOTS + best_places % SLOTS, used, 0)
    best = tl.where(used, best, -float("inf"))
    weights = tl.exp(best - tl.max(best, axis=1)[:, None])
    weights /= tl.sum(weights, axis=1)[:, None]
    if COUNTS:
        tl.atomic_add(received + cells, weights, used)
    weights = tl.reshape(weights, (SLOTS, 1))
    value_rows = values + tl.reshape(cells, (SLOTS, 1)).to(tl.int64) * values_stride_n
    used = tl.reshape(used, (SLOTS, 1))
    for start in range(0, objects * CHANNELS, STEP):
        columns = start + tl.arange(0, STEP)
        column_used = columns < objects * CHANNELS
        offset = (columns // CHANNELS).to(tl.int64) * values_stride_o + (columns % CHANNELS) * values_stride_c
        v = tl.load(value_rows + offset[None, :], used & column_used[None, :], 0.0).to(tl.float32)
        total = tl.sum(weights * v, axis=0)
        tl.store(out + row * (objects * CHANNELS) + columns, total.to(out.dtype.element_ty), column_used)
