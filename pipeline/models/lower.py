"""The start of a forward pass, run once for passes that differ further up only.

An edit changes nothing below the first block that it edits. So whoever looks at one batch before
and after an edit (locality, scoring) runs the blocks below once: what the last of them puts out is
kept, and handed over in their place when the same batch comes again.

Where the kept pass has an autograd graph, the later passes hang on to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from pipeline.models.layouts import layout_of


class Lower:
    """The blocks of a model below the first of some sites, in the order that they run.

    All blocks of a stack before that of the first site count as well (an unedited encoder). Where
    it is not known what lies below a site, or there is no site, nothing is shared.
    """

    def __init__(self, model: PreTrainedModel, sites: Iterable[str]) -> None:
        self.model = model
        self.stacks = _below(model, tuple(sites))
        self._kept: dict[str, Any] = {}
        self._read: Mapping[str, Tensor] = {}

    def shared(self, inputs: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """One pass of many over these inputs: kept where the last was of others, else reused."""
        if self._read.keys() == inputs.keys() and all(
            torch.equal(last, inputs[name]) for name, last in self._read.items()
        ):
            return self.reused()
        self._read = inputs
        return self.kept()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what one pass inside puts out."""
        self._kept.clear()
        with ExitStack() as stack:
            for blocks in self.stacks:
                last = self.model.get_submodule(blocks[-1])
                keep = _Keeper(blocks[-1], self._kept)
                stack.callback(last.register_forward_hook(keep).remove)
            yield

    @contextmanager
    def reused(self) -> Iterator[None]:
        """Passes inside are of the batch that was kept, and begin above."""
        with ExitStack() as stack:
            for blocks in self.stacks:
                answer = _always(self._kept[blocks[-1]])
                for name in blocks:
                    stack.enter_context(acting(self.model.get_submodule(name), answer))
            yield


class Resume:
    """Passes over the same texts while blocks are edited from the first to the last.

    Below the block that is edited next nothing changes any more, so that each pass leaves what
    enters it, and the one after goes on from there.
    """

    def __init__(self) -> None:
        self.next: str | None = None  # the site that is edited next
        self._left: dict[int, Lower] = {}  # of each batch, by the last pass

    def to(self, site: str) -> Resume:
        """Before the next site's turn."""
        self.next = site
        return self

    @contextmanager
    def going_on(self, model: PreTrainedModel, number: int) -> Iterator[None]:
        """One pass over a batch."""
        assert self.next is not None
        fresh = Lower(model, [self.next])
        with ExitStack() as stack:
            if (left := self._left.get(number)) is not None:
                stack.enter_context(left.reused())
            stack.enter_context(fresh.kept())
            yield
        self._left[number] = fresh


def _below(model: PreTrainedModel, sites: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Names of the blocks below the first site, stack by stack, none empty."""
    assert isinstance(model.config, PretrainedConfig)
    stacks = [stack.blocks for stack in layout_of(model.config).stacks]
    numbers: dict[str, list[int]] = {stack: [] for stack in stacks}
    for site in sites:
        stack = next((stack for stack in stacks if site.startswith(f"{stack}.")), None)
        if stack is None:
            return []
        numbers[stack].append(int(site.removeprefix(f"{stack}.").split(".")[0]))
    if not sites:
        return []
    found = []
    for stack, edited in numbers.items():
        blocks = model.get_submodule(stack)
        assert isinstance(blocks, nn.ModuleList)
        count = min(edited, default=len(blocks))
        found.append(tuple(f"{stack}.{number}" for number in range(count)))
        if edited:
            break
    return [blocks for blocks in found if blocks]


class _Keeper:
    def __init__(self, name: str, into: dict[str, Any]) -> None:
        self.name, self.into = name, into

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.into[self.name] = output


def _always(output: Any) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: output


@contextmanager
def acting(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module do something else; models spread over devices have a forward of their own."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
