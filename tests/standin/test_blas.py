"""cuBLAS and cuBLASLt: every form PyTorch calls, against the CPU."""

import pytest
import torch
import torch.nn.functional as F

TOLERANCE = {
    torch.float32: dict(rtol=1e-4, atol=1e-4),
    torch.float64: dict(rtol=1e-10, atol=1e-10),
    torch.bfloat16: dict(rtol=2e-2, atol=2e-1),
    torch.float16: dict(rtol=2e-3, atol=2e-2),
}


def compare(operation, *inputs):
    """The operation on the device equals the operation on the CPU."""
    on_device = operation(*(x.cuda() for x in inputs)).cpu()
    torch.testing.assert_close(on_device, operation(*inputs), **TOLERANCE[inputs[0].dtype])


def random(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("transposed_a", [False, True])
@pytest.mark.parametrize("transposed_b", [False, True])
def test_matrix_product(dtype, transposed_a, transposed_b):
    a = random(33, 65, dtype=dtype)
    b = random(65, 17, dtype=dtype)
    a = a.t().contiguous().t() if transposed_a else a
    b = b.t().contiguous().t() if transposed_b else b
    compare(torch.matmul, a, b)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_batched_product(dtype):
    compare(torch.bmm, random(5, 9, 20, dtype=dtype), random(5, 20, 7, dtype=dtype))


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_linear(dtype, bias):
    inputs = [random(12, 48, dtype=dtype), random(40, 48, dtype=dtype)]
    if bias:
        inputs.append(random(40, dtype=dtype))
    compare(F.linear, *inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gelu", [False, True])
def test_bias_and_activation_in_one(dtype, gelu):
    """The epilogues of cublasLtMatmul: ReLU and GELU (by tanh, as cuBLASLt's) after the bias."""
    bias, a, b = random(40, dtype=dtype), random(24, 16, dtype=dtype), random(16, 40, dtype=dtype)
    result = torch._addmm_activation(bias.cuda(), a.cuda(), b.cuda(), use_gelu=gelu).cpu()
    sum_ = torch.addmm(bias, a, b)
    expected = F.gelu(sum_, approximate="tanh") if gelu else F.relu(sum_)
    torch.testing.assert_close(result, expected, **TOLERANCE[dtype])


def test_gradients_of_a_linear_layer():
    """The other two products of training: transposed on either side."""
    def gradients(x, weight, bias):
        leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
        F.linear(*leaves).square().sum().backward()
        return torch.cat([leaf.grad.flatten() for leaf in leaves])

    compare(gradients, random(12, 48), random(40, 48), random(40))


def test_addmm_scales_and_adds():
    compare(lambda c, a, b: torch.addmm(c, a, b, alpha=0.5, beta=2.0), random(6, 8), random(6, 10), random(10, 8))


def test_baddbmm_broadcasts_its_input():
    compare(lambda c, a, b: torch.baddbmm(c, a, b, alpha=0.5), random(1, 6, 8), random(4, 6, 10), random(4, 10, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matrix_vector_and_dot(dtype):
    compare(torch.mv, random(9, 13, dtype=dtype), random(13, dtype=dtype))
    compare(lambda a, x: torch.mv(a.t(), x), random(9, 13, dtype=dtype), random(9, dtype=dtype))
    compare(torch.dot, random(101, dtype=dtype), random(101, dtype=dtype))


def test_an_empty_product():
    assert torch.matmul(torch.ones(0, 4, device="cuda"), torch.ones(4, 3, device="cuda")).shape == (0, 3)


def test_what_is_not_there_is_an_error_that_names_it(program):
    finished = program("""
        import torch
        a, b = torch.eye(4).expand(3, 4, 4).contiguous().cuda(), torch.ones(3, 4, 2).cuda()
        try:
            torch.matmul(a.to(torch.complex64), b.to(torch.complex64))
        except RuntimeError as error:
            print("refused")
    """, STANDIN_UNKNOWN="count")
    assert finished.stdout == "refused\n"
    assert "cublasC" in finished.stderr
