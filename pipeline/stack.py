"""Edits in force on a model, all at once.

Weight updates of all edits are laid together site by site, into one hook for each: their terms side
by side, or written out where that is smaller. Memories follow, the latest last, so that where two
would answer the later one does. The model itself is never written: with no edit in force there is
no hook, and its answers are the untouched model's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pipeline.editing.memory import Memory
from pipeline.editing.patch import Intervention, Patch, applied, join
from pipeline.editing.updates import Dense, Factors, Update
from pipeline.errors import EditorError


class Stack:
    """Edits by number, in the order in which they were made."""

    def __init__(self) -> None:
        self._edits: dict[int, Intervention] = {}
        self._patch: Patch | None = None

    def __len__(self) -> int:
        return len(self._edits)

    def __contains__(self, number: int) -> bool:
        return number in self._edits

    def numbers(self) -> list[int]:
        """Which edits are in force."""
        return list(self._edits)

    def put(self, number: int, edit: Intervention) -> None:
        """Add an edit of one row; its place is its number's, with those below 0 after the others.

        Numbers below 0 are of edits that are newer than all that are written down.
        """
        assert edit.rows == 1, f"an edit of {edit.rows} rows"
        self._edits[number] = edit
        self._edits = dict(
            sorted(self._edits.items(), key=lambda item: (item[0] < 0, abs(item[0])))
        )
        self._patch = None

    def take(self, number: int) -> Intervention:
        """Remove an edit, wherever it stands."""
        self._patch = None
        return self._edits.pop(number)

    def without(self, numbers: Collection[int]) -> Stack:
        """The same edits but for some; this one stays as it is."""
        found = Stack()
        found._edits = {n: edit for n, edit in self._edits.items() if n not in numbers}
        return found

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Let `model` answer as edited inside."""
        with ExitStack() as stack:
            for edit in (self._weights(), *self._memories()):
                stack.enter_context(applied(model, edit))
            yield

    @contextmanager
    def beneath(self, model: nn.Module) -> Iterator[None]:
        """Let `model` compute with updated weights inside, and no memory answer for it.

        What is edited next builds on this: a memory has no weights to build on, and hides from a
        loss what the weights would say.
        """
        with applied(model, self._weights()):
            yield

    def whole(self) -> Intervention:
        """All edits as one row: the sum of their updates, or every entry of their memories.

        They are all patches or all memories, as one editor makes them.
        """
        memories = [edit for edit in self._edits.values() if isinstance(edit, Memory)]
        if not memories:
            return Patch({site: together(parts) for site, parts in self.updates().items()})
        assert len(memories) == len(self._edits), "patches and memories in one"
        longest = max(memory.token_RKL.shape[2] for memory in memories)
        tokens = [pad(m.token_RKL, (0, longest - m.token_RKL.shape[2]), value=-1) for m in memories]
        keys = [memory.key_RKD for memory in memories]
        return replace(memories[-1], key_RKD=torch.cat(keys, 1), token_RKL=torch.cat(tokens, 1))

    def updates(self, least: int | None = None) -> dict[str, list[Update]]:
        """Each site's updates, edit by edit, of numbers from `least` on."""
        found: dict[str, list[Update]] = {}
        for number, edit in self._edits.items():
            if isinstance(edit, Patch) and (least is None or number >= least):
                for site, update in edit.updates.items():
                    found.setdefault(site, []).append(update)
        return found

    def weights(self) -> dict[str, list[Update]]:
        """`updates` of edits that are not temporary, where they are all there is.

        Raises:
            EditorError: an edit is a memory, which no weights can hold, or there are no edits.
        """
        lasting = {number: edit for number, edit in self._edits.items() if number > 0}
        if not lasting:
            raise EditorError(
                expected="an edit in force",
                found="none",
                remedy="Edit first; `errata log` shows what was undone.",
            )
        memories = [str(n) for n, edit in lasting.items() if not isinstance(edit, Patch)]
        if memories:
            raise EditorError(
                expected="edits that update weights",
                found=f"edits {', '.join(memories)}, which answer from memory",
                remedy="Undo them, or make them with an editor that changes weights.",
            )
        return self.updates(least=1)

    def _weights(self) -> Patch:
        if self._patch is None:
            self._patch = Patch({s: together(parts) for s, parts in self.updates().items()})
        return self._patch

    def _memories(self) -> list[Intervention]:
        return [edit for edit in self._edits.values() if not isinstance(edit, Patch)]


def together(updates: Sequence[Update]) -> Update:
    """The sum of one-row updates of a site."""
    factors = [update for update in updates if isinstance(update, Factors)]
    dense = [update.delta_ROI for update in updates if isinstance(update, Dense)]
    if factors:
        whole = Factors(
            torch.cat([part.left_RKO for part in factors], dim=1),
            torch.cat([part.right_RKI for part in factors], dim=1),
        )
        terms, outputs, inputs = whole.left_RKO.shape[1], *_shape(whole)
        if not dense and terms <= inputs * outputs / (inputs + outputs):
            return whole
        dense.append(whole.dense_ROI())
    total_ROI = dense[0].clone() if len(dense) > 1 else dense[0]
    for delta_ROI in dense[1:]:
        total_ROI += delta_ROI
    return Dense(total_ROI)


def one_row(edit: Intervention) -> Intervention:
    """Rows of an edit as one: the sum of a patch's; a memory's entries side by side."""
    if edit.rows == 1:
        return edit
    if isinstance(edit, Patch):
        return join(edit)
    assert isinstance(edit, Memory)
    return replace(
        edit, key_RKD=edit.key_RKD.flatten(0, 1)[None], token_RKL=edit.token_RKL.flatten(0, 1)[None]
    )


def moved(edit: Intervention, device: torch.device) -> Intervention:
    """The same edit on a device, with no view of a larger tensor behind it."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device).contiguous()

    if isinstance(edit, Memory):
        return replace(edit, key_RKD=move(edit.key_RKD), token_RKL=move(edit.token_RKL))
    assert isinstance(edit, Patch)
    updates: dict[str, Update] = {}
    for site, update in edit.updates.items():
        if isinstance(update, Factors):
            updates[site] = Factors(move(update.left_RKO), move(update.right_RKI))
        else:
            updates[site] = Dense(move(update.delta_ROI))
    return Patch(updates)


def _shape(update: Factors) -> tuple[int, int]:
    """O, I."""
    return update.left_RKO.shape[2], update.right_RKI.shape[2]
