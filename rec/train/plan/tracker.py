"""What lives, and what is computed, at each operation of whatever runs under it."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

import rec.nn.catalogue  # noqa: F401  (its operations are counted here)
from rec.nn.backbone import blocks

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@register_flop_formula(torch.ops.kindling.log2_partition)
def _flops_of_partition(query: torch.Size, table: torch.Size, *_: Any, **__: Any) -> int:
    """One product of all queries and all items."""
    return 2 * query[0] * table.numel()


@register_flop_formula(torch.ops.kindling.expect)
def _flops_of_expectation(query: torch.Size, table: torch.Size, *others: torch.Size | None, **__: Any) -> int:
    """The same product again, and one more for each gradient that is wanted."""
    *_, mean, grad = others
    return (1 + (mean is not None) + (grad is not None)) * 2 * query[0] * table.numel()


class Tracker(TorchDispatchMode):
    """Writes down after every operation how many bytes live, and what it computed.

    Args:
        model: whose parameters and buffers are not counted.
        targets: for tensors without data: the scored positions, which `nonzero` would find.
    """

    def __init__(self, model: nn.Module, targets: int | None = None) -> None:
        super().__init__()
        self.targets = targets
        self.temporary: list[float] = []
        self.root: list[float] = []
        self.layers: list[float] = []
        self.other: list[float] = []
        self.attention: list[float] = []
        self.marks: list[int] = []
        self._live = self._root = self._layers = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._hooks = []
        self._inside = {id(one) for layer in blocks(model) for one in layer.parameters()}
        for tensor in (*model.parameters(), *model.buffers()):
            self._known[tensor.untyped_storage()] = 0
        for parameter in model.parameters():
            if parameter.requires_grad:
                self._hooks.append(parameter.register_post_accumulate_grad_hook(self._finish))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operation.namespace == "prim":  # asks for a device, and makes nothing
            return operation(*args, **kwargs)
        result: Any
        if self.targets is not None and operation is torch.ops.aten.nonzero.default:
            result = torch.empty(self.targets, args[0].ndim, dtype=torch.int64)
        else:
            result = operation(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._meet(tensor)
        self._write_down(*_flops(operation, args, kwargs, result))
        return result

    def _write_down(self, attention: float, other: float) -> None:
        self.attention.append(attention)
        self.other.append(other)
        self.temporary.append(self._live)
        self.root.append(self._root)
        self.layers.append(self._layers)

    def _meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known[storage] = size = storage.nbytes()
            self._live += size
            weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self._live -= size

    def _finish(self, parameter: Tensor) -> None:
        """A gradient is whole: from here on it is no temporary any more."""
        assert parameter.grad is not None
        size = parameter.grad.untyped_storage().nbytes()
        self._live -= size
        if id(parameter) in self._inside:
            self._layers += size
        else:
            self._root += size
        self._write_down(0.0, 0.0)


def _flops(operation: Any, args: Any, kwargs: Any, result: Any) -> tuple[float, float]:
    """Floating-point operations of attention, and of anything else that is worth counting."""
    packet = operation.overloadpacket
    if packet is ATTENTION:
        return float(sdpa_flop_count(*(tensor.shape for tensor in args[:3]))), 0.0
    if packet is ATTENTION_BACKWARD:
        return float(sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))), 0.0
    plain = getattr(torch.ops.aten, packet.__name__.removesuffix("_"), packet)  # what is done in place costs the same
    count = flop_registry.get(plain)
    return 0.0, float(count(*args, **kwargs, out_val=result)) if count else 0.0
