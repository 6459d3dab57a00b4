"""Products of training: narrow where the machine multiplies narrow numbers, and told by name."""

import pytest
import torch

from harness.machine import precision
from harness.machine.precision import does_bfloat16, product_type, taught_products, type_name


@pytest.mark.parametrize(
    ("known", "does"),
    [
        ({}, True),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": False}, False),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
    ],
)
def test_a_cpu_multiplies_bfloat16_where_its_instructions_do(known: dict[str, object], does: bool) -> None:
    assert does_bfloat16(known) is does


@pytest.mark.parametrize("does", [False, True])
def test_products_of_training_are_as_the_cpu_multiplies(does: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "capabilities", lambda: {"avx512_bf16": does})
    weight, inputs = torch.eye(3, requires_grad=True), torch.full((2, 3), 1 + 2.0**-10)
    with taught_products():
        product = torch.nn.functional.linear(inputs, weight)
    expected = torch.bfloat16 if does else torch.float32
    assert product.dtype == expected == product_type()
    assert torch.equal(product, inputs.to(expected))
    product.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert type_name(expected) == ("bfloat16" if does else "float32")


def test_an_accelerator_multiplies_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "capabilities", lambda: {"avx512_bf16": False})
    assert product_type("cuda:1") == torch.bfloat16
