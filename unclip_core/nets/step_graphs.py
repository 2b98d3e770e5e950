"""CUDA graphs: the kernels of a net's step recorded once, and launched together in all steps behind it.

Within a run all steps have the same shapes, and a picture alone keeps a large GPU waiting for Python and for launches:
half of its time (Karlo on an H200). A graph is of a method of one net, of one set of shapes, and of the weights
where they lay.
"""

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .batch_chunks import ConditionedNet
from .layers import Times
from .memory_formats import plain_is_asked_for

log = logging.getLogger("unclip")
MOST = 4
"""So many graphs are kept; they share their memory, which is that of the largest."""

_ALLOWED: ContextVar[bool] = ContextVar("step graphs are allowed", default=True)


class Backend(Protocol):
    """What records and replays."""

    def pool(self) -> Any:
        """A new place for memory that several recordings share."""
        ...

    def record(self, work: Callable[[], Tensor], device: torch.device, pool: Any) -> tuple[Callable[[], None], Tensor]:
        """Record `work`; returns what replays it, and the tensor that holds its result after each replay."""
        ...


class CudaGraphs:
    """torch's own graphs."""

    def __init__(self) -> None:
        """Nothing is recorded yet."""
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def pool(self) -> Any:
        """A new pool."""
        return torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor], device: torch.device, pool: Any) -> tuple[Callable[[], None], Tensor]:
        """Run `work` once aside, where libraries set themselves up, and record it there.

        `torch.cuda.graph` would collect garbage of the whole process first, which in ComfyUI takes as long as a step.
        """
        with torch.cuda.device(device):
            # One stream for all: cuBLAS takes a workspace of 32 MiB for each that it has seen, and keeps it.
            aside = self._streams.get(device) or self._streams.setdefault(device, torch.cuda.Stream())
            graph = torch.cuda.CUDAGraph()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                work()
                torch.cuda.synchronize()
                torch.cuda.empty_cache()  # while it is recorded, nothing can be given back
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    result = work()
                finally:
                    graph.capture_end()
            torch.cuda.current_stream().wait_stream(aside)
        return graph.replay, result


@dataclass(eq=False)
class _Step:
    """What is known of a method under one signature: met once at first; then with a graph, or refused for good."""

    net: "weakref.ref[nn.Module]"
    read: "tuple[weakref.ref[Any], ...]"
    """What its key names by their ids: it is forgotten before another can take one of them."""
    device: torch.device
    refused: bool = False
    graph: "_Graph | None" = None


@dataclass(eq=False)
class _Graph:
    inputs: list[Tensor]
    weights: tuple[int, ...]
    replay: Callable[[], None]
    result: Tensor

    def __call__(self, given: list[Tensor]) -> Tensor:
        for dtype in dict.fromkeys(tensor.dtype for tensor in given):  # of mixed ones each is copied by itself
            into = [tensor for tensor in self.inputs if tensor.dtype == dtype]
            torch._foreach_copy_(into, [tensor for tensor in given if tensor.dtype == dtype])
        self.replay()
        return self.result.clone()  # the next replay writes over it


class StepGraphs:
    """The graphs of all nets: of a method's signature the first call is plain, the second recorded, others replayed.

    A graph is freed when its net or its function is, when its weights lie elsewhere, or when `most` others were used
    after it.
    """

    def __init__(self, backend: Backend, most: int = MOST) -> None:
        """Keep none as yet."""
        self._backend, self._most = backend, most
        self._steps: OrderedDict[Any, _Step] = OrderedDict()
        self._pools: dict[torch.device, Any] = {}
        self._lock = threading.RLock()  # a graph's inputs are its own: one thread at a time

    def run(
        self, net: nn.Module, forward: Callable[..., Tensor], given: tuple[Any, ...], holders: "_Holders"
    ) -> Tensor:
        """`forward`'s output, replayed where it was recorded.

        Args:
            net: whose weights `forward` reads; all of them on one device, and without hooks.
            forward: (x, t, condition, times) -> output; each has graphs of its own.
            given: x, t, condition and the embeddings of t, in place of what looks them up; tensors, None, and mappings
                of these.
            holders: the net's, see `_holders`.
        """
        with self._lock:
            made = self._replayed(net, forward, given, holders)
        return _with_embedded(forward, *given) if made is None else made

    def release(self, *modules: nn.Module) -> None:
        """Free the graphs of these nets, and of all nets within them; of all nets there are, if none is named."""
        inside = {id(part) for module in modules for part in module.modules()}
        for key in [key for key in self._steps if not modules or key[0] in inside]:
            del self._steps[key]

    def __len__(self) -> int:
        """How many graphs there are."""
        return sum(step.graph is not None for step in self._steps.values())

    def _replayed(
        self, net: nn.Module, forward: Callable[..., Tensor], given: tuple[Any, ...], holders: "_Holders"
    ) -> Tensor | None:
        """The output, or None where there is no graph, as at the first call."""
        read = _identity(forward)
        key = (id(net), tuple(map(id, read)), _signature(given))
        step = self._steps.get(key)
        if step is None:
            self._meet(key, net, read, _leaves(given)[0].device)
            return None
        self._steps.move_to_end(key)
        weights = _places(holders)
        if step.graph is not None and step.graph.weights != weights:
            step.graph = None
        if step.graph is None and not step.refused:
            self._record(step, forward, given, weights)
        return None if step.graph is None else step.graph(_leaves(given))

    def _meet(self, key: Any, net: nn.Module, read: tuple[Any, ...], device: torch.device) -> None:
        steps = self._steps

        def forget(_: object) -> None:
            steps.pop(key, None)

        steps[key] = _Step(weakref.ref(net, forget), tuple(weakref.ref(part, forget) for part in read), device)
        while len(steps) > 8 * self._most:
            steps.popitem(last=False)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(
        self, step: _Step, forward: Callable[..., Tensor], given: tuple[Any, ...], weights: tuple[int, ...]
    ) -> None:
        """Outside of inference mode: what is made in it could not be written to behind it."""
        kept = [other for other in self._steps.values() if other.graph is not None]
        for oldest in kept[: max(0, len(kept) + 1 - self._most)]:
            oldest.graph = None
        if not any(other.graph is not None and other.device == step.device for other in kept):
            self._pools[step.device] = self._backend.pool()
        held = _mapped(given, torch.clone)
        try:
            work = partial(_with_embedded, forward, *held)
            replay, result = self._backend.record(work, step.device, self._pools[step.device])
        except Exception as error:  # whatever the driver says, out of memory too
            step.refused = True
            log.warning("The steps of a %s are not recorded, and take longer: %s", type(step.net()).__name__, error)
            return
        step.graph = _Graph(_leaves(held), weights, replay, result)


GRAPHS = StepGraphs(CudaGraphs())
"""Those of this process."""


@contextmanager
def not_recorded() -> Iterator[None]:
    """While the context lasts no run that begins records its steps: weights may be others in the next."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def stepped(net: nn.Module, forward: Callable[..., Tensor], times: Times | None = None) -> ConditionedNet:
    """A net for all steps of a run, whose launches are recorded where that pays: on CUDA, without gradients.

    Args:
        net: whose weights lie where they are until the run has ended.
        forward: (x, t, condition, times) -> output, the net or a method of it; nothing in it may wait for the device.
        times: the embeddings of the run's timesteps, where they were computed beforehand.

    Returns:
        (x, t, condition) -> output.
    """
    plain = partial(forward, times=times)
    holders: _Holders = []
    if not _ALLOWED.get() or plain_is_asked_for() or _has_hooks(net):
        return plain

    def run(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        if not pays(x):
            return plain(x, t, condition)
        if not holders:
            holders.extend(_holders(net))
        return GRAPHS.run(net, forward, (x, t, condition, None if times is None else times(t)), holders)

    return run


def pays(x: Tensor) -> bool:
    """Whether a step of this input can be recorded: on CUDA, where nothing has to see its operations."""
    if x.device.type != "cuda" or torch.version.hip is not None or is_watched():
        return False
    return not torch.is_autocast_enabled("cuda") and not torch.cuda.is_current_stream_capturing()


def is_watched() -> bool:
    """Whether operations are recorded for gradients or seen by a `TorchDispatchMode`, which sees none in a replay."""
    return torch.is_grad_enabled() or _get_current_dispatch_mode() is not None


def _with_embedded(forward: Callable[..., Tensor], x: Tensor, t: Tensor, condition: Any, time: Tensor | None) -> Tensor:
    """The output of `forward`, given the embeddings `time` `[B, E]` of `t`, if any, in place of what looks them up."""
    return forward(x, t, condition, times=None if time is None else lambda _: time)


def _identity(forward: Callable[..., Tensor]) -> tuple[Any, ...]:
    """What makes `forward` this one: a method is made anew wherever it is named, its function and object are not."""
    return (forward.__func__, forward.__self__) if isinstance(forward, MethodType) else (forward,)


def _has_hooks(net: nn.Module) -> bool:
    return any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


_Holders = list[Mapping[str, Tensor | None]]
"""What holds a net's weights: its modules' own dictionaries."""


def _holders(net: nn.Module) -> _Holders:
    """Collected once a run: to go through the modules in each step would take 5 ms for Karlo's decoder."""
    return [held for part in net.modules() for held in (part._parameters, part._buffers) if held]


def _places(holders: _Holders) -> tuple[int, ...]:
    """Where the weights lie."""
    return tuple(tensor.data_ptr() for held in holders for tensor in held.values() if tensor is not None)


def _signature(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tuple(tree.shape), tree.dtype, tree.device
    if isinstance(tree, Mapping):
        return tuple((key, _signature(value)) for key, value in tree.items())
    return tuple(map(_signature, tree)) if isinstance(tree, tuple) else tree


def _leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, tuple) else ()
    return [leaf for part in parts for leaf in _leaves(part)]


def _mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(value, change) for key, value in tree.items()}
    return tuple(_mapped(part, change) for part in tree) if isinstance(tree, tuple) else tree
