"""Weights that no launch names: products go through tables of addresses that a
kernel writes on the card."""

import pytest

from harness import identical_at, reference

SHARE = 0.3
ORDERS = ["eager", "late:1", "random:1", "copies-first", "kernels-first"]


@pytest.fixture(autouse=True)
def sm_90(monkeypatch):
    """PyTorch goes by tables from there on."""
    monkeypatch.setenv("STANDIN_SM", "9.0")


@pytest.mark.parametrize("order", ORDERS)
def test_grouped_products(order):
    vram = int(reference("grouped").out["weight_bytes"] * SHARE)
    result = identical_at("grouped", vram=vram, STANDIN_ORDER=order)
    looks = result.stats["looks"]
    assert looks["found"] > 0 and looks["missed"] == 0
