"""Linear products on the CPU with weights laid out once for the product kernel.

A decode step multiplies a few rows by every weight, so its time is that of reading the weights. torch's plain
product reads them in the order of the file, at a fraction of the memory's bandwidth; oneDNN's own blocked
layout is read at nearly all of it. The plain product stays the reference.
"""

from itertools import count
from weakref import WeakValueDictionary

import torch
from torch import Tensor, library, nn
from torch.compiler import is_compiling

from backbones.pages import in_use

DTYPES = (torch.float32, torch.bfloat16)
KERNEL_BYTES = 600_000
"""What oneDNN keeps for every shape of product that it has met: 0.55 to 0.66 MB measured (oneDNN as in torch
2.14, AVX-512 with bfloat16); with AMX 0.66 to 1.5 in bfloat16, the more the more rows; without instructions
for bfloat16 0.07 in it and 0.3 in float32. ``pardec calibrate`` measures a machine's own. oneDNN forgets the
oldest beyond ``KERNELS_KEPT``."""
KERNELS_KEPT = 1024


class PackedLinear(nn.Module):
    """x [..., in] -> [..., out], its weight in oneDNN's layout for about ``rows`` rows; inference only."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        in_use(torch.ops.mkldnn.data_ptr(self.packed), torch.ops.mkldnn._nbytes(self.packed))
        self.kernel = torch.ops.mkldnn._linear_pointwise.default
        self.bias = bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)
        number = next(_numbers)
        self.register_buffer("number", torch.tensor(number), persistent=False)
        _layers[number] = self

    def forward(self, x: Tensor) -> Tensor:
        if is_compiling():
            return torch.ops.pardec.packed_linear.default(x, self.number, self.out_features)
        return self.kernel(x, self.packed, self.bias, "none", [], "")


# The compiler knows no tensor of oneDNN's layout: to it a packed product is one opaque operation. Which layer
# it is of, is read off a tensor when it runs, so that blocks of one kind share a graph.
_numbers = count()
_layers: WeakValueDictionary[int, PackedLinear] = WeakValueDictionary()
_operators = library.Library("pardec", "DEF")
_operators.define("packed_linear(Tensor x, Tensor layer, int out_features) -> Tensor")


@library.impl(_operators, "packed_linear", "CPU")
def _product_of_layer(x: Tensor, layer: Tensor, out_features: int) -> Tensor:
    return _layers[int(layer)](x)


@library.register_fake("pardec::packed_linear", lib=_operators)
def _product_without_data(x: Tensor, layer: Tensor, out_features: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], out_features)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this build of torch has the packed product for weights of ``dtype`` on ``device``."""
    return device.type == "cpu" and dtype in DTYPES and torch.backends.mkldnn.is_available()


def pack(network: nn.Module, rows: int) -> None:
    """Replace every linear layer of ``network`` by its packed form, one by one, so that at no time more than
    one weight exists twice. rows: how many a typical step multiplies. ValueError where ``can_pack`` says no.
    """
    owners = [
        (owner, name)
        for owner in network.modules()
        for name, layer in owner.named_children()
        if isinstance(layer, nn.Linear)
    ]
    for owner, name in owners:
        layer = getattr(owner, name)
        if not can_pack(layer.weight.device, layer.weight.dtype):
            raise ValueError(f"no packed product for {layer.weight.dtype} on {layer.weight.device}")
        setattr(owner, name, PackedLinear(layer.weight, layer.bias, rows))


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all weights, packed ones included."""
    packed = [module for module in network.modules() if isinstance(module, PackedLinear)]
    biases = {id(module.bias) for module in packed}
    plain = sum(p.nbytes for p in network.parameters() if id(p) not in biases)
    return plain + sum(module.nbytes for module in packed)
