"""PyTorch's other two allocators: the driver's pools, and its own VMM segments."""

import pytest

PROGRAM = """
    import torch
    torch.manual_seed(0)
    MIB = 1 << 20
    assert torch.cuda.get_allocator_backend() == "{backend}"
    layer = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256))
    x = torch.randn(32, 256)
    expected = layer(x)
    on_device = layer.cuda()
    for _ in range(5):
        y = on_device(x.cuda())
    torch.testing.assert_close(y.cpu(), expected, rtol=1e-4, atol=1e-5)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        z = y * 2
        z.record_stream(torch.cuda.current_stream())
    side.synchronize()
    torch.testing.assert_close(z.cpu(), 2 * expected, rtol=1e-4, atol=1e-5)
    try:
        torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")
    except torch.cuda.OutOfMemoryError:
        print("out of memory, as it should")
    del on_device, layer, y, z
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    big = torch.empty(160 * MIB, dtype=torch.uint8, device="cuda")
    print("done")
"""


@pytest.mark.parametrize("variable", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
@pytest.mark.parametrize("setting, backend", [
    ("backend:native", "native"),
    ("backend:cudaMallocAsync", "cudaMallocAsync"),
    ("expandable_segments:True", "native"),
])
def test_allocator(program, variable, setting, backend):
    source = PROGRAM.format(backend=backend)
    finished = program(source, STANDIN_VRAM="256M", **{variable: setting})
    assert finished.stdout == "out of memory, as it should\ndone\n"
