"""Allocation, copies, pinned memory, capacity."""

import torch

MIB = 1 << 20


def test_a_tensor_on_the_device():
    x = torch.ones(4, device="cuda")
    assert x.cpu().tolist() == [1.0] * 4


def test_copies_there_and_back_are_exact():
    x = torch.arange(3 * MIB, dtype=torch.int32)
    y = x.cuda()
    z = y.clone()
    assert torch.equal(z.cpu(), x)
    z[7:9] = y[:2]
    assert z.cpu()[6:10].tolist() == [6, 0, 1, 9]


def test_a_strided_copy():
    x = torch.arange(64 * 64, dtype=torch.float32).reshape(64, 64)
    assert torch.equal(x.cuda().t().contiguous().cpu(), x.t())


def test_pinned_memory_is_pinned_and_copied():
    x = torch.arange(MIB, dtype=torch.float32).pin_memory()
    assert x.is_pinned() and not torch.ones(1).is_pinned()
    y = x.to("cuda", non_blocking=True)
    back = torch.empty_like(x, device="cpu").pin_memory()
    back.copy_(y, non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(back, x)


def test_fresh_memory_is_not_zero():
    torch.cuda.empty_cache()
    x = torch.empty(MIB, dtype=torch.uint8, device="cuda")
    assert x.cpu().ne(0).all()


def test_mem_get_info_follows_allocations():
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    x = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    during, _ = torch.cuda.mem_get_info()
    assert 64 * MIB <= free - during <= 66 * MIB
    del x
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info() == (free, total)


def test_the_host_cannot_read_device_memory(program):
    finished = program("""
        import ctypes, torch
        x = torch.ones(4, device="cuda")
        torch.cuda.synchronize()
        ctypes.c_float.from_address(x.data_ptr()).value
    """, fails=True)
    assert finished.returncode == -11, finished.stdout + finished.stderr


def test_out_of_memory_is_an_error_and_is_survived(program):
    finished = program("""
        import torch
        MIB = 1 << 20
        kept = [torch.full((32 * MIB // 4,), float(i), device="cuda") for i in range(3)]
        try:
            torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        except torch.cuda.OutOfMemoryError as error:
            assert "out of memory" in str(error).lower(), error
        else:
            raise SystemExit("no error")
        for i, x in enumerate(kept):
            assert x.cpu().eq(i).all()
        del kept[0], x
        torch.cuda.empty_cache()
        y = torch.empty(48 * MIB, dtype=torch.uint8, device="cuda")
        print("survived")
    """, STANDIN_VRAM="128M")
    assert finished.stdout == "survived\n"
