"""What the memory says at each query cell: the affinity of keys, and the readout of values by it.

Similarity is STCN's negative squared distance (Cheng et al., NeurIPS 2021, eq. 3) over sqrt(Ck),

    S = (2 k.q - |k|^2) / sqrt(Ck),

where |q|^2 is left out because it cancels in the softmax over the cells of the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK_BYTES = 8 << 20  # similarities held at once: about what a CPU's cache holds
_GROUP = 16  # cells whose largest similarity is compared before their own are


def topk_readout(query: Tensor, keys: Tensor, values: Tensor, top_k: int = 20) -> Tensor:
    """The values of the `top_k` memory cells most alike each query cell, weighted by their softmax.

    query: (Ck, P). keys: (N, Ck). values: (N, O, Cv). top_k: at most N count. Returns (O, Cv, P).

    Exact: the result is that of a dense affinity (N, P) cut to its top_k largest entries a column, but no
    such matrix exists. Work goes in blocks of query cells, and one gather serves all objects.
    Raises ValueError where shapes disagree, the memory is empty or top_k is below 1.
    """
    _check(query, keys, values, top_k)
    cells, objects, channels = values.shape
    rows = values.reshape(cells, objects * channels)
    offset = keys.float().square().sum(dim=1) / keys.shape[1] ** 0.5
    scaled = keys.T.float() * (2 / keys.shape[1] ** 0.5)  # (Ck, N)
    block = max(_BLOCK_BYTES // (4 * cells), 1)
    out = []
    for part in query.T.split(block):  # (p, Ck)
        similarity = part.float() @ scaled - offset  # (p, N)
        top, index = _topk(similarity, min(top_k, cells))
        weights = top.softmax(dim=1).to(rows.dtype)
        out.append(functional.embedding_bag(index, rows, mode="sum", per_sample_weights=weights))
    return torch.cat(out).view(-1, objects, channels).permute(1, 2, 0)


def full_readout(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The readout over all cells, as in training, for a batch.

    query: (B, Ck, P). keys: (B, N, Ck). values: (B, N, O, Cv). Returns (B, O, Cv, P).
    """
    similarity = 2 * keys @ query - keys.square().sum(dim=2, keepdim=True)  # (B, N, P)
    affinity = (similarity / keys.shape[2] ** 0.5).softmax(dim=1)
    out = values.flatten(2).transpose(1, 2) @ affinity  # (B, O * Cv, P)
    return out.unflatten(1, values.shape[2:])


def _topk(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and where they are, in no promised order.

    The k largest cells of a row lie in the k groups of largest maximum, so only those are searched.
    """
    cells = similarity.shape[1]
    groups = cells // _GROUP
    if groups <= 2 * k:
        top, index = similarity.topk(k, dim=1, sorted=False)
        return top, index
    grouped = similarity[:, : groups * _GROUP].unflatten(1, (groups, _GROUP))
    best = grouped.amax(dim=2).topk(k, dim=1, sorted=False).indices  # (p, k)
    index = (best.unsqueeze(2) * _GROUP + torch.arange(_GROUP, device=best.device)).flatten(1)
    rest = torch.arange(groups * _GROUP, cells, device=best.device)  # fewer than a group
    index = torch.cat([index, rest.expand(len(index), -1)], dim=1)
    top, place = similarity.gather(1, index).topk(k, dim=1, sorted=False)
    return top, index.gather(1, place)


def _check(query: Tensor, keys: Tensor, values: Tensor, top_k: int) -> None:
    given = f"query {tuple(query.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}"
    if (query.ndim, keys.ndim, values.ndim) != (2, 2, 3):
        raise ValueError(f"expected query (Ck, P), keys (N, Ck), values (N, O, Cv), not {given}")
    if query.shape[0] != keys.shape[1] or keys.shape[0] != values.shape[0]:
        raise ValueError(f"sizes disagree: {given}")
    if keys.shape[0] == 0:
        raise ValueError("the memory is empty: there is nothing to read")
    if top_k < 1:
        raise ValueError(f"top_k is at least 1, not {top_k}")
