"""The stand-in's kernels: what PyTorch computes on it, against the CPU.

    standin/run python tests/standin/test_kernels.py [pytest options]
"""

import math
import sys

import pytest
import torch
import torch.nn.functional as F

TOLERANCE = {
    torch.float32: dict(rtol=2e-5, atol=2e-6),
    torch.float64: dict(rtol=1e-12, atol=1e-12),
    torch.bfloat16: dict(rtol=1.6e-2, atol=1e-2),
    torch.float16: dict(rtol=2e-3, atol=1e-3),
}
FLOATS = list(TOLERANCE)
MAIN = [torch.float32, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    if dtype.is_floating_point:
        return torch.randn(*shape, generator=generator).to(dtype)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).to(torch.bool)
    return torch.randint(0, 60, shape, generator=generator).to(dtype)


def compare(operation, *inputs, tolerance=None):
    """The operation on the device equals the operation on the CPU, all outputs."""
    expected = operation(*inputs)
    actual = operation(*(x.cuda() if isinstance(x, torch.Tensor) else x for x in inputs))
    pairs = zip(actual, expected) if isinstance(expected, (tuple, list)) else [(actual, expected)]
    for a, e in pairs:
        assert a.device.type == "cuda" and a.dtype == e.dtype and a.shape == e.shape
        limits = tolerance or TOLERANCE.get(e.dtype, dict(rtol=0, atol=0))
        torch.testing.assert_close(a.cpu(), e, equal_nan=True, **limits)


def views(x):
    """The same numbers laid out in the ways kernels tell apart."""
    yield x
    yield x.t().contiguous().t()
    yield torch.stack([x, x], dim=-1)[..., 0]
    # Starts off a vector boundary.
    yield torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x)


UNARY = [
    torch.abs, torch.neg, torch.exp, torch.expm1, torch.sin, torch.cos, torch.tanh, torch.sigmoid, torch.erf,
    torch.floor, torch.ceil, torch.round, torch.trunc, torch.frac, torch.sign, torch.square, torch.relu,
    torch.isnan, torch.isinf, torch.isfinite, torch.logical_not, torch.reciprocal, torch.atan, torch.signbit,
    F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.leaky_relu, F.softplus, F.elu, F.relu6, F.logsigmoid,
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("operation", UNARY, ids=lambda f: f.__name__)
def test_unary(operation, dtype):
    # PyTorch's CUDA kernels of these two compute with 1/6 in single precision.
    single = dtype == torch.float64 and operation in (F.hardswish, F.hardsigmoid)
    for x in views(random(37, 53, dtype=dtype)):
        compare(operation, x, tolerance=dict(rtol=1e-7, atol=1e-7) if single else None)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("operation", [torch.log, torch.log2, torch.log10, torch.log1p, torch.sqrt, torch.rsqrt],
                         ids=lambda f: f.__name__)
def test_unary_on_positive_numbers(operation, dtype):
    for x in views(random(37, 53, dtype=dtype).abs() + 0.1):
        compare(operation, x)


@pytest.mark.parametrize("dtype", MAIN, ids=str)
def test_activations_with_parameters(dtype):
    x = random(40, 60, dtype=dtype)
    compare(lambda x: F.gelu(x, approximate="tanh"), x)
    compare(lambda x: F.elu(x, alpha=1.7), x)
    compare(lambda x: F.celu(x, alpha=1.7), x)
    compare(F.selu, x)
    compare(lambda x: F.leaky_relu(x, 0.2), x)
    compare(lambda x: F.softplus(x, beta=2.0, threshold=1.0), x)
    compare(lambda x: F.threshold(x, 0.125, 20.0), x)
    compare(lambda x: F.hardtanh(x, -0.3, 0.7), x)
    compare(lambda x: F.glu(x, dim=-1), x)
    compare(lambda x: torch.clamp(x, -0.5, 0.5), x)
    compare(lambda x: torch.clamp(x, min=0.25), x)
    compare(lambda x: torch.clamp(x, max=0.25), x)
    compare(lambda x: torch.clamp(x, -x.abs(), x.abs() * 0.5), x)
    compare(lambda x: torch.nan_to_num(x), x)


BINARY = [torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, torch.eq, torch.ne, torch.lt, torch.le,
          torch.gt, torch.ge]


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
@pytest.mark.parametrize("operation", BINARY, ids=lambda f: f.__name__)
def test_binary(operation, dtype):
    x, y = random(21, 34, dtype=dtype), random(21, 34, dtype=dtype, seed=1)
    for a in views(x):
        compare(operation, a, y)
    compare(operation, x, y[0])
    compare(operation, x, y[:, :1])
    if operation not in (torch.maximum, torch.minimum):
        compare(operation, x, 3)
        compare(operation, x, 0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_division_and_powers(dtype):
    x, y = random(21, 34, dtype=dtype), random(21, 34, dtype=dtype, seed=1).abs() + 0.5
    for operation in (torch.div, torch.true_divide):
        compare(operation, x, y)
        compare(operation, x, 3.0)
    compare(lambda x: 1.5 / x, y)
    compare(lambda x: 2.0 - x, y)
    for exponent in (2, 3, -2, 0.5, -0.5, -1, 1.7):
        compare(torch.pow, y, exponent)
    compare(torch.pow, y, x)
    compare(lambda x: 2.0 ** x, x)
    compare(lambda x, y: torch.fmod(x, y), x, y)
    compare(lambda x, y: torch.remainder(x, y), x, y)
    compare(lambda x: torch.remainder(x, 0.7), x)
    compare(lambda x, y: torch.lerp(x, y, 0.3), x, y)
    compare(lambda x, y: torch.lerp(x, y, y), x, y)
    compare(lambda x, y: torch.addcmul(x, y, y, value=0.5), x, y)
    compare(lambda x, y: torch.addcdiv(x, x, y, value=0.5), x, y)
    compare(lambda x, y: torch.add(x, y, alpha=-1.5), x, y)
    compare(lambda x, y: torch.atan2(x, y), x, y)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_arithmetic(dtype):
    x, y = random(21, 34, dtype=dtype), random(21, 34, dtype=dtype, seed=1) + 1
    for mode in ("floor", "trunc", None):
        compare(lambda x, y: torch.div(x, y, rounding_mode=mode), x, y)
    compare(lambda x: x // 7, x)
    compare(torch.remainder, x, y)
    compare(torch.bitwise_and, x, y)
    compare(torch.bitwise_or, x, 5)
    compare(torch.bitwise_xor, x, y)
    compare(torch.bitwise_not, x)
    compare(lambda x: -x, x)
    compare(lambda x: x << 1, x)
    compare(lambda x: x >> 1, x)
    compare(lambda x: x ** 2, x)
    compare(lambda x: x.clamp(3, 9), x)


def test_booleans():
    x, y = random(21, 34, dtype=torch.bool), random(21, 34, dtype=torch.bool, seed=1)
    for operation in (torch.logical_and, torch.logical_or, torch.logical_xor, torch.bitwise_and, torch.bitwise_or,
                      torch.eq, torch.ne, torch.mul, torch.add):
        compare(operation, x, y)
    compare(torch.logical_not, x)
    compare(lambda x: ~x, x)
    compare(lambda x: x.any(), x)
    compare(lambda x: x.all(dim=1), x)
    compare(lambda x: x.sum(), x)


@pytest.mark.parametrize("to", FLOATS + INTEGERS + [torch.bool], ids=str)
@pytest.mark.parametrize("source", FLOATS + INTEGERS + [torch.bool], ids=str)
def test_conversion(source, to):
    x = random(19, 23, dtype=source)
    if source.is_floating_point and not to.is_floating_point and to != torch.bool:
        x = x.abs() * 20
    for view in views(x):
        compare(lambda x: x.to(to), view)
    compare(lambda x: torch.zeros(19, 23, device=x.device, dtype=to).copy_(x), x.t().contiguous().t())


def test_mixed_types_promote():
    x = random(11, 13)
    compare(torch.add, x, random(11, 13, dtype=torch.int64))
    compare(torch.mul, x.to(torch.bfloat16), x)
    compare(torch.add, random(11, 13, dtype=torch.int32), random(11, 13, dtype=torch.int64))
    compare(lambda x: x.to(torch.bfloat16) * torch.tensor(2.5), x)


def test_fill_and_factories():
    for dtype in FLOATS + INTEGERS + [torch.bool]:
        for make in (lambda d: torch.zeros(7, 5, dtype=dtype, device=d), lambda d: torch.ones(7, 5, dtype=dtype, device=d),
                     lambda d: torch.full((33, 3), 3, dtype=dtype, device=d),
                     lambda d: torch.empty(9, 9, dtype=dtype, device=d).t().fill_(1)):
            assert torch.equal(make("cuda").cpu(), make("cpu"))
    for dtype in FLOATS + [torch.int64, torch.int32]:
        for arguments in ((10,), (3, 300, 7), (5, -4, -2)):
            assert torch.equal(torch.arange(*arguments, dtype=dtype, device="cuda").cpu(), torch.arange(*arguments, dtype=dtype))
    torch.testing.assert_close(torch.arange(0, 1, 0.01, device="cuda").cpu(), torch.arange(0, 1, 0.01))
    assert torch.equal(torch.eye(5, 7, device="cuda").cpu(), torch.eye(5, 7))


REDUCTIONS = [torch.sum, torch.mean, torch.amax, torch.amin, torch.argmax, torch.argmin, torch.var, torch.std,
              torch.logsumexp, torch.all, torch.any, torch.linalg.vector_norm]


@pytest.mark.parametrize("dtype", MAIN, ids=str)
@pytest.mark.parametrize("operation", REDUCTIONS, ids=lambda f: f.__name__)
def test_reduction(operation, dtype):
    limits = dict(rtol=2e-2, atol=2e-2) if dtype == torch.bfloat16 else dict(rtol=1e-4, atol=1e-5)
    for shape in ((5, 7), (64, 300), (3, 4, 130)):
        x = random(*shape, dtype=dtype)
        for dim in range(-1, len(shape) - 1):
            limits_here = None if operation in (torch.argmax, torch.argmin, torch.all, torch.any) else limits
            compare(lambda x: operation(x, dim=dim), x, tolerance=limits_here)
            compare(lambda x: operation(x, dim=dim, keepdim=True), x.transpose(0, 1).contiguous().transpose(0, 1),
                    tolerance=limits_here)
    if operation in (torch.sum, torch.mean, torch.argmax, torch.all, torch.any):
        compare(operation, random(100, 1000, dtype=dtype), tolerance=None if operation is not torch.sum else dict(rtol=1e-2, atol=1e-2))


@pytest.mark.parametrize("dtype", MAIN + [torch.int64], ids=str)
def test_maximum_with_index(dtype):
    x = random(33, 65, dtype=dtype)
    x[3, 5:9] = x[3].max() + 1
    for dim in (0, 1):
        compare(lambda x: tuple(torch.max(x, dim=dim)), x)
        compare(lambda x: tuple(torch.min(x, dim=dim)), x)
    compare(torch.max, x)
    compare(torch.min, x)
    compare(torch.aminmax, x)
    compare(lambda x: x.abs().max(), x)
    compare(lambda x: x.argmax(dim=-1), x)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_reduction(dtype):
    x = random(33, 65, dtype=dtype)
    for operation in (torch.sum, torch.amax, torch.argmax):
        compare(lambda x: operation(x, dim=1), x)


def test_whole_tensor_checks():
    x = random(40, 50).cuda()
    assert torch.equal(x, x.clone()) and not torch.equal(x, x + 1)
    assert torch.allclose(x, x + 1e-9)
    assert x.isfinite().all().item() and not (x / 0).isfinite().any().item()
    assert math.isclose(x.sum().item(), x.cpu().sum().item(), rel_tol=1e-4, abs_tol=1e-4)
    x[3, 4] = float("nan")
    assert x.isnan().sum().item() == 1 and math.isnan(x.max().item())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_softmax(dtype):
    for width in (1, 5, 64, 1000, 1024, 1025, 5000):
        x = random(9, width, dtype=dtype) * 3
        compare(lambda x: F.softmax(x, dim=-1), x)
        compare(lambda x: F.log_softmax(x, dim=-1), x)
    x = random(6, 40, 11, dtype=dtype)
    compare(lambda x: F.softmax(x, dim=1), x)
    compare(lambda x: F.softmax(x, dim=0), x)
    if dtype != torch.float64:
        compare(lambda x: F.softmax(x, dim=-1, dtype=torch.float32), random(9, 100, dtype=dtype))


@pytest.mark.parametrize("dtype", MAIN + [torch.float16], ids=str)
def test_normalisation(dtype):
    for width in (7, 64, 1000, 1024):
        x, weight, bias = random(13, width, dtype=dtype), random(width, dtype=dtype, seed=1), random(width, dtype=dtype, seed=2)
        compare(lambda x, w, b: F.layer_norm(x, (width,), w, b), x, weight, bias)
        compare(lambda x, w: F.layer_norm(x, (width,), w), x, weight)
        compare(lambda x: F.layer_norm(x, (width,)), x)
        compare(lambda x, w: F.rms_norm(x, (width,), w), x, weight)
        compare(lambda x: F.rms_norm(x, (width,), eps=1e-6), x)
    compare(lambda x: x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(x.dtype), random(5, 33, dtype=dtype))


@pytest.mark.parametrize("dtype", MAIN + [torch.int64, torch.bool], ids=str)
def test_shapes(dtype):
    x, y = random(4, 6, 8, dtype=dtype), random(4, 6, 8, dtype=dtype, seed=1)
    for dim in (0, 1, 2):
        compare(lambda x, y: torch.cat([x, y], dim=dim), x, y)
        compare(lambda x, y: torch.cat([x, y.transpose(0, 1).contiguous().transpose(0, 1)], dim=dim), x, y)
        compare(lambda x, y: torch.stack([x, y, x], dim=dim), x, y)
    compare(lambda x, y: torch.cat([x[:, :3], y[:, 1:], x[..., :8]], dim=1), x, y)
    compare(lambda x, y: torch.cat([x.flatten()[:7], y.flatten()[3:]]), x, y)
    compare(lambda x: x.permute(2, 0, 1).contiguous(), x)
    compare(lambda x: x.transpose(1, 2).reshape(4, 48), x)
    compare(lambda x: x[:, ::2].contiguous(), x)
    compare(lambda x: x.repeat(2, 1, 3), x)
    compare(lambda x: x.expand(3, 4, 6, 8).contiguous(), x)
    compare(lambda x: torch.flip(x, [1]), x)
    compare(lambda x: torch.roll(x, 3, 1), x)
    compare(lambda x: [part.contiguous() for part in x.chunk(3, dim=1)], x)
    compare(lambda x: torch.tril(x), x)
    compare(lambda x: torch.triu(x, diagonal=2), x)
    compare(lambda x: x.clone().triu_(-1), x)
    compare(lambda x: F.pad(x, (1, 2)), x)


@pytest.mark.parametrize("dtype", MAIN + [torch.int64, torch.bool], ids=str)
def test_indexing(dtype):
    table = random(50, 24, dtype=dtype)
    rows = torch.tensor([3, 0, 49, 7, 7, 21])
    many = torch.arange(400) * 7 % 50
    compare(lambda t, i: t[i], table, rows)
    compare(lambda t, i: t.index_select(0, i), table, rows)
    compare(lambda t, i: t.index_select(0, i), table, many)
    compare(lambda t, i: t.index_select(1, i), table, rows % 24)
    compare(lambda t, i: t[:, i], table, rows % 24)
    compare(lambda t, i, j: t[i, j], table, rows, rows % 24)
    compare(lambda t, i: t[-1 - i], table, rows)
    compare(lambda t, i: torch.gather(t, 0, i.view(1, -1).expand(3, -1)), table, rows)
    compare(lambda t, i: torch.gather(t, 1, i.view(-1, 1)), table, rows % 24)
    if dtype.is_floating_point:
        compare(lambda t, i: F.embedding(i, t), table, rows.view(2, 3))
        compare(lambda t, i: F.embedding(i, t), table, many.view(20, 20))
        compare(lambda t, i: F.embedding(i, t[:, 1:]), table, many)

    def put(t, i):
        t = t.clone()
        t[i] = 1
        t[i, i % 24] = t[0, 0].clone()
        t[2:5, ::3] = 0
        t.scatter_(1, (i % 24).view(-1, 1), t[6:12, :1].clone())
        return t

    compare(put, table, rows)
    compare(lambda t, m: t.masked_fill(m, 1), table, random(50, 24, dtype=torch.bool))
    compare(lambda t, m: torch.where(m, t, t.flip(0)), table, random(50, 24, dtype=torch.bool))
    compare(lambda t, m: torch.where(m, t, 0), table, random(50, 1, dtype=torch.bool))


@pytest.mark.parametrize("dtype", MAIN + [torch.int64, torch.bool], ids=str)
def test_selection_by_condition(dtype):
    for x in (random(7, dtype=torch.bool), random(5, 9, 4, dtype=torch.bool), random(300, 1000, dtype=torch.bool)):
        values = random(*x.shape, dtype=dtype)
        compare(torch.nonzero, (values * x))
        compare(lambda v, x: v[x], values, x)
        compare(lambda v, x: torch.masked_select(v, x), values, x)
    printed = str(values[:3, :4].cuda()).replace(" device='cuda:0',", "").replace(", device='cuda:0'", "")
    assert printed.split() == str(values[:3, :4]).split()


def test_index_out_of_bounds_fails(program):
    finished = program("""
        import torch
        x = torch.zeros(4, device="cuda")
        x[torch.tensor([1, 9], device="cuda")].sum().item()
    """, fails=True)
    assert finished.returncode != 0 and "out of bounds" in finished.stdout + finished.stderr


@pytest.mark.parametrize("dtype", MAIN + [torch.float16], ids=str)
def test_random_numbers(dtype):
    torch.manual_seed(3)
    uniform = torch.rand(300, 301, device="cuda", dtype=dtype).float().cpu()
    normal = torch.randn(300, 301, device="cuda", dtype=dtype).float().cpu()
    assert 0 <= uniform.min() and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01 and abs(uniform.var() - 1 / 12) < 0.01
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    torch.manual_seed(3)
    assert torch.equal(torch.rand(300, 301, device="cuda", dtype=dtype).float().cpu(), uniform)
    assert not torch.equal(torch.rand(300, 301, device="cuda", dtype=dtype).float().cpu(), uniform)
    spread = torch.empty(50, 40, device="cuda", dtype=dtype).t().uniform_(-2, 3).float().cpu()
    assert -2 <= spread.min() and spread.max() < 3 and spread.std() > 1
    heads = torch.empty(10_000, device="cuda").bernoulli_(0.25).mean().item()
    assert abs(heads - 0.25) < 0.03
    tokens = torch.randint(5, 17, (1000,), device="cuda").cpu()
    assert tokens.min() == 5 and tokens.max() == 16


class Block(torch.nn.Module):
    """A pre-norm transformer block, attention written out or by SDPA."""

    def __init__(self, width, heads, rms, sdpa):
        super().__init__()
        norm = torch.nn.RMSNorm if rms else torch.nn.LayerNorm
        self.norm1, self.norm2 = norm(width), norm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.heads, self.sdpa = heads, sdpa

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        if self.sdpa:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            mask = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            mixed = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(torch.nn.Module):
    def __init__(self, rms, sdpa, vocabulary=100, width=64, depth=3, heads=4):
        super().__init__()
        self.embedding, self.position = torch.nn.Embedding(vocabulary, width), torch.nn.Embedding(64, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads, rms, sdpa) for _ in range(depth))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@pytest.mark.parametrize("dtype", MAIN, ids=str)
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("sdpa", [False, True])
@torch.no_grad()
def test_transformer(dtype, rms, sdpa):
    torch.manual_seed(0)
    model = Model(rms, sdpa).to(dtype).eval()
    tokens = torch.randint(0, 100, (2, 33))
    expected = model(tokens)
    actual = model.cuda()(tokens.cuda()).cpu()
    limits = dict(rtol=1e-4, atol=1e-4) if dtype == torch.float32 else dict(rtol=5e-2, atol=5e-2)
    torch.testing.assert_close(actual, expected, **limits)
    assert actual.std() > 0.1
    assert torch.equal(model(tokens.cuda()).cpu(), actual), "the same bytes in must give the same bytes out"


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@torch.no_grad()
def test_encoder_layer(activation):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation=activation, batch_first=True, norm_first=True)
    x = random(2, 17, 64)
    # Training mode keeps to the plain operations; there is no fused path for it.
    expected = layer(x)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.testing.assert_close(layer.cuda()(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", *sys.argv[1:]]))
