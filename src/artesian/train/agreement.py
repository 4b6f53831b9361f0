"""One state for all ranks: the newest that any of them has found.

Ranks that were stopped a step apart have snapshots of different steps, and one that is new on its node has
none. Replicas are alike, so whoever has the newest gives it to those who have not: a rank's state comes from its own
memory, else from the memory of a peer, else from storage.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from artesian.train.membership import Membership
from artesian.train.plain import dtype_named, from_plain, to_plain
from artesian.train.saver import Restored
from artesian.train.vote import Vote


def newest_of_all(found: Restored | None, member: Membership) -> tuple[Restored | None, bool]:
    """Return the newest state of any rank, and whether it is this rank's own; all ranks call it together.

    For replicated state (DDP). The state of another rank is the same but for what is each rank's own, such as
    the state of its random generators.
    """
    if member.control is None:
        return found, found is not None
    newest = Vote(member.control, dist.ReduceOp.MAX)
    own = 0 if found is None else found.step + 1
    # Of those who have the newest, the lowest rank gives: it is the one with the greatest of these.
    size = member.world_size
    (who,) = newest.hold(own * size + size - 1 - member.rank)
    step, root = divmod(who, size)
    root = size - 1 - root
    if step == 0:
        return None, False
    is_own = own == step
    (are_all_own,) = Vote(member.control, dist.ReduceOp.MIN).hold(int(is_own))
    if are_all_own:
        return found, True
    given = _give(found if member.rank == root else None, root, member)
    return (found, True) if is_own else (given, False)


def _give(found: Restored | None, root: int, member: Membership) -> Restored:
    """Send the state of ``root`` to all others, tensor by tensor."""
    box: list[Any] = [None]
    tensors: list[Tensor] = []
    if found is not None:
        tree, named = to_plain(found.state)
        tensors = [tensor.contiguous() for tensor in named.values()]
        shapes = [(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for tensor in tensors]
        box = [(replace(found, state={}, rejected=()), tree, shapes)]
    dist.broadcast_object_list(box, src=root, group=member.control)
    head, tree, shapes = box[0]
    if found is None:
        tensors = [torch.empty(shape, dtype=dtype_named(name)) for name, shape in shapes]
    for tensor in tensors:
        if tensor.numel():
            dist.broadcast(tensor.reshape(-1).view(torch.uint8), src=root, group=member.control)
    given: Restored = head
    return replace(given, state=from_plain(tree, tensors))
