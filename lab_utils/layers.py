"""Linear layers under an adapter or in 4 bits, computed with less work and the same results.

- While training, `lean` spares an adapted layer the copies that peft makes for the general case.
- While generating, `merged` puts one plain linear layer in the place of each, for as long as it is asked to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from lab_utils import environment, processes

COPY_SHARE = 0.5  # of the free memory: how much merged weights may take, so that keys and values find room beside them


def lean(model) -> None:
    """Gives every plain LoRA layer of a peft model a forward pass without needless casts and copies.

    peft casts the input to the adapter's float32, which autocast casts back for the product, and multiplies the wide result by
    `alpha / r`. Here autocast alone decides on the format, and a scale that is a power of two, which no rounding notices, is applied to
    the `r` numbers in between. The results are peft's, bit for bit.

    Dropout, DoRA, several adapters at once, and mixed formats without autocast keep peft's own pass.
    """
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and _is_linear(module.get_base_layer()):
            module.__class__ = _lean_class(type(module))


@cache
def _lean_class(usual: type) -> type:
    class Lean(usual):
        def forward(self, x, *args: Any, **kwargs: Any):
            name = self._only_adapter(x, args, kwargs)
            if name is None:
                return super().forward(x, *args, **kwargs)
            scale, low = self.scaling[name], self.lora_A[name](x)
            if _is_power_of_two(scale):
                return self.base_layer(x) + self.lora_B[name](low * scale)
            return self.base_layer(x) + self.lora_B[name](low) * scale

        def _only_adapter(self, x, args, kwargs) -> str | None:
            """The name of the adapter, where there is nothing else to take care of."""
            import torch

            if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
                return None
            name = self.active_adapters[0]
            if name not in self.lora_A or name in self.lora_variant or not isinstance(self.lora_dropout[name], torch.nn.Identity):
                return None
            one_format = x.dtype == self.lora_A[name].weight.dtype or torch.is_autocast_enabled(x.device.type)
            return name if one_format else None

    Lean.__name__ = Lean.__qualname__ = usual.__name__
    return Lean


def _is_power_of_two(scale: float) -> bool:
    return math.frexp(scale)[0] == 0.5


@contextmanager
def merged(model, precision) -> Iterator[bool]:
    """Inside, each adapted layer is one plain linear layer of weights `W + alpha / r B A`, and each 4-bit layer is unpacked.

    Sums are made in float32 and rounded to the format of the products, as the weights of a fully trained model are. The model's own
    layers are set aside, not changed, and stand where they stood afterwards. Left as they are: int8 layers, whose product rounds its
    inputs too, layers under DoRA, layers split by FSDP, and everything where the copies would take more than half of the free memory.

    Args:
        precision: `environment.Precision` of the products.

    Yields:
        Whether any layer was replaced.
    """
    import torch

    places = [place for place in _places(model) if _can_merge(place[2])]
    copies = sum(_weights(layer) for _, _, layer in places) * precision.dtype.itemsize
    if processes.sharded() or copies > COPY_SHARE * free_bytes(model.device):
        places = []
    try:
        with torch.no_grad():
            for parent, name, layer in places:
                setattr(parent, name, _plain(layer, precision.dtype))
        yield bool(places)
    finally:
        for parent, name, layer in places:
            setattr(parent, name, layer)


def _places(model) -> list[tuple[Any, str, Any]]:
    """Parent, name and layer of every linear layer that is adapted, quantized, or both."""
    from peft.tuners.lora import LoraLayer

    found = []

    def walk(parent):
        for name, child in parent.named_children():
            if isinstance(child, LoraLayer) or _is_4bit(child):
                found.append((parent, name, child))
            else:
                walk(child)

    walk(model)
    return found


def _base(layer):
    return getattr(layer, "base_layer", layer)


def _adapters(layer) -> list[str]:
    """Names of the adapters that take part in the layer's result now."""
    if not hasattr(layer, "lora_A") or layer.disable_adapters:
        return []
    return [name for name in layer.active_adapters if name in layer.lora_A and name not in layer.merged_adapters]


def _can_merge(layer) -> bool:
    return _is_linear(_base(layer)) and not any(name in layer.lora_variant for name in _adapters(layer))


def _is_linear(layer) -> bool:
    import torch

    return type(layer) is torch.nn.Linear or _is_4bit(layer)


def _is_4bit(layer) -> bool:
    return type(layer).__name__ == "Linear4bit" and hasattr(layer.weight, "quant_state")


def _weights(layer) -> int:
    return _base(layer).in_features * _base(layer).out_features


def unpacked(layer):
    """The base weight of a linear layer as plain numbers (n_out, n_in), detached; a weight that is not quantized comes back as it is.

    peft's `dequantize_module_weight` does the same, but takes an int8 layer on a CPU apart: its next pass finds no scales.
    """
    from peft.utils.integrations import dequantize_bnb_weight

    base = _base(layer)
    quantized = type(base.weight).__name__ in ("Params4bit", "Int8Params")
    return dequantize_bnb_weight(base.weight, getattr(base, "state", None)).detach() if quantized else base.weight.detach()


def _plain(layer, dtype):
    """One linear layer with the results of the base layer and its adapters; a 4-bit weight becomes `dtype`, another keeps its format."""
    import torch

    base, weight = _base(layer), unpacked(layer)
    dtype = dtype if _is_4bit(base) else weight.dtype
    updates = [layer.get_delta_weight(name) for name in _adapters(layer)]
    if updates:
        weight = weight.float() + sum(update.float() for update in updates)
    plain = torch.nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    plain.weight = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
    plain.bias = base.bias
    return plain.eval()


def free_bytes(device) -> float:
    """Bytes that a tensor could still take on that device."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return environment.available_memory()
