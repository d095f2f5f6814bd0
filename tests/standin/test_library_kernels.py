"""The stand-in's kernels that libraries of models need: attention in one kernel, image
models without cuDNN, running sums, sorting. Each against PyTorch on the CPU.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from test_kernels import FLOATS, MAIN, TOLERANCE, compare, random

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def without_cudnn():
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    yield
    torch.backends.cudnn.enabled = enabled


def attention(backend, q, k, v, **options):
    """On the device by that backend alone, against the CPU in full precision."""
    expected = F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(),
        **{name: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
           for name, x in options.items()})
    on_device = {name: x.cuda() if isinstance(x, torch.Tensor) else x
                 for name, x in options.items()}
    with sdpa_kernel(backend):
        actual = F.scaled_dot_product_attention(q.cuda(), k.cuda(), v.cuda(), **on_device)
    assert actual.dtype == q.dtype
    limits = dict(rtol=1e-4, atol=2e-5) if q.dtype == torch.float32 else TOLERANCE[q.dtype]
    torch.testing.assert_close(actual.cpu().float(), expected, **limits)
    assert actual.std() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("width", [32, 64, 128, 256])
@torch.no_grad()
def test_memory_efficient_attention(dtype, width):
    q, k, v = (random(2, 3, rows, width, dtype=dtype, seed=i) for i, rows in enumerate((17, 40, 40)))
    attention(SDPBackend.EFFICIENT_ATTENTION, q, k, v)
    attention(SDPBackend.EFFICIENT_ATTENTION, q, k, v, is_causal=True)
    attention(SDPBackend.EFFICIENT_ATTENTION, q, k, v, scale=0.3)
    attention(SDPBackend.EFFICIENT_ATTENTION, q, k, v,
              attn_mask=random(2, 1, 17, 40, dtype=dtype, seed=9))
    seen = torch.ones(17, 40, dtype=torch.bool).tril(12)
    attention(SDPBackend.EFFICIENT_ATTENTION, q, k, v, attn_mask=seen)
    # As projections leave it: heads beside one another in a row.
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    attention(SDPBackend.EFFICIENT_ATTENTION, q, k, v)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("width", [64, 96, 128])
@torch.no_grad()
def test_flash_attention(dtype, width):
    q, k, v = (random(2, 4, 33, width, dtype=dtype, seed=i) for i in range(3))
    attention(SDPBackend.FLASH_ATTENTION, q, k, v)
    attention(SDPBackend.FLASH_ATTENTION, q, k, v, is_causal=True)
    attention(SDPBackend.FLASH_ATTENTION, q, k[:, :, :20], v[:, :, :20], scale=0.2)
    attention(SDPBackend.FLASH_ATTENTION, q, k[:, :2], v[:, :2], enable_gqa=True)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    attention(SDPBackend.FLASH_ATTENTION, q, k, v)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("width", [64, 160])
@torch.no_grad()
def test_flash_attention_that_splits_the_keys(dtype, width):
    q = random(1, 2, 5, width, dtype=dtype, seed=1)
    k, v = (random(1, 2, 700, width, dtype=dtype, seed=i) for i in (2, 3))
    attention(SDPBackend.FLASH_ATTENTION, q, k, v)
    attention(SDPBackend.FLASH_ATTENTION, q, k[:, :, :77], v[:, :, :77])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("count", [1, 2, 7, 4096])
def test_numbers_between_two(dtype, count):
    on_device = torch.linspace(-1.5, 3, count, dtype=dtype, device="cuda").cpu()
    torch.testing.assert_close(on_device, torch.linspace(-1.5, 3, count, dtype=dtype))
    assert count == 1 or on_device[-1] == 3


@torch.no_grad()
def test_convolution_without_cudnn():
    x = random(2, 6, 9, 11)
    for options in ({}, {"padding": 1}, {"stride": 2, "padding": (2, 1)}, {"dilation": 2}):
        weight, bias = random(8, 6, 3, 3), random(8)
        compare(lambda x, w, b: F.conv2d(x, w, b, **options), x, weight, bias,
                tolerance=dict(rtol=1e-4, atol=1e-5))
    compare(lambda x, w: F.conv1d(x, w, stride=2, padding=1), random(2, 6, 30), random(5, 6, 3),
            tolerance=dict(rtol=1e-4, atol=1e-5))
    compare(lambda x, w: F.conv2d(x, w), x, random(8, 6, 1, 1),
            tolerance=dict(rtol=1e-4, atol=1e-5))


@pytest.mark.parametrize("dtype", MAIN, ids=str)
@torch.no_grad()
def test_group_norm(dtype):
    x, weight, bias = random(2, 12, 5, 7, dtype=dtype), random(12, dtype=dtype), random(12, dtype=dtype)
    limits = dict(rtol=1e-4, atol=1e-5) if dtype == torch.float32 else dict(rtol=3e-2, atol=4e-2)
    for groups in (1, 4, 12):
        compare(lambda x, w, b: F.group_norm(x, groups, w, b), x, weight, bias, tolerance=limits)
        compare(lambda x: F.group_norm(x, groups), x, tolerance=limits)


@torch.no_grad()
def test_nearest_upsampling():
    for mode in ("nearest", "nearest-exact"):
        compare(lambda x: F.interpolate(x, scale_factor=2, mode=mode), random(2, 3, 5, 7))
        compare(lambda x: F.interpolate(x, size=(3, 11), mode=mode), random(2, 3, 5, 7))


@torch.no_grad()
def test_running_sums():
    for dtype in (torch.int64, torch.int32, torch.float32, torch.float64):
        for x in (random(5, 33, dtype=dtype), random(40, dtype=dtype), random(1, 9, dtype=dtype)):
            compare(lambda x: x.cumsum(-1), x)
            compare(lambda x: x.cumsum(0), x)
    compare(lambda x: x.cumprod(1), random(3, 12, dtype=torch.float64))
    compare(lambda x: x.cumsum(1), torch.arange(12).view(3, 4) % 3 == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@torch.no_grad()
def test_sorting_and_the_first_few(dtype):
    # All different, so that the order is told by the numbers alone.
    x = torch.stack([torch.randperm(100, generator=torch.Generator().manual_seed(i))
                     for i in range(6)]).to(dtype)
    for descending in (False, True):
        for tensor, dim in ((x, -1), (x.t().contiguous(), 0), (x[:, :20], 1)):
            compare(lambda x: torch.sort(x, dim=dim, descending=descending), tensor)
            compare(lambda x: torch.topk(x, 5, dim=dim, largest=descending), tensor)
    compare(lambda x: x.argsort(-1), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@torch.no_grad()
def test_copies_by_index(dtype):
    places = torch.tensor([4, 0, 2])

    def copied(x, source, dim):
        return x.clone().index_copy_(dim, places.to(x.device), source)
    compare(lambda x, s: copied(x, s, 0), random(6, 5, dtype=dtype), random(3, 5, dtype=dtype, seed=1))
    compare(lambda x, s: copied(x, s, 2), random(2, 3, 6, 4, dtype=dtype), random(2, 3, 3, 4, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@torch.no_grad()
def test_sums_by_index(dtype):
    for count in (3, 40):  # small and large kernels
        index = torch.arange(count) * 7 % 50
        x, more = random(50, 6, dtype=dtype), random(count, 6, dtype=dtype, seed=1)
        compare(lambda x, i, s: x.clone().index_add_(0, i, s), x, index, more)
        compare(lambda x, i, s: x.clone().index_add_(0, i, s, alpha=2), x, index, more)
        compare(lambda x, i, s: x.clone().t().contiguous().index_add_(1, i, s.t()), x, index, more)
    twice = torch.tensor([4, 1, 4])
    compare(lambda x, i, s: x.clone().index_add_(0, i, s), x, twice, more[:3])


@torch.no_grad()
def test_one_value_scattered():
    places = torch.tensor([[3, 0, 1], [2, 2, 4]])
    for dtype in (torch.float32, torch.int64, torch.bool):
        compare(lambda x, i: x.clone().scatter_(1, i, 1), random(2, 5, dtype=dtype), places)
    compare(lambda i: F.one_hot(i, 6), places)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", [
    torch.tanh, torch.sigmoid, F.silu, F.gelu, lambda x: F.gelu(x, approximate="tanh")],
    ids=["tanh", "sigmoid", "silu", "gelu", "gelu-tanh"])
def test_slopes(function, dtype):
    def slope(x, dy):
        x = x.detach().requires_grad_()
        function(x).backward(dy)
        return x.grad
    limits = {torch.float32: dict(rtol=1e-4, atol=1e-5), torch.float64: dict(rtol=1e-9, atol=1e-9)}
    compare(slope, random(7, 33, dtype=dtype), random(7, 33, dtype=dtype, seed=2),
            tolerance=limits.get(dtype, dict(rtol=3e-2, atol=2e-2)))
