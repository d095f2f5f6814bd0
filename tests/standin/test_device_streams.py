"""Streams and events as PyTorch uses them."""

import torch

MIB = 1 << 20


def test_work_on_two_streams_ordered_by_an_event():
    a, b = torch.cuda.Stream(), torch.cuda.Stream()
    done = torch.cuda.Event()
    x = torch.zeros(MIB, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(a):
        for _ in range(8):
            x.add_(1)
        done.record()
    with torch.cuda.stream(b):
        b.wait_event(done)
        y = x * 2
    b.synchronize()
    assert y.cpu().eq(16).all()


def test_events_tell_order_and_time():
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    x = torch.ones(MIB, device="cuda")
    start.record()
    for _ in range(10):
        x.add_(1)
    end.record()
    end.synchronize()
    assert start.query() and end.query()
    assert start.elapsed_time(end) > 0


def test_query_of_unfinished_work_leaves_no_error():
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.ones(8 * MIB, device="cuda")
        for _ in range(20):
            x.mul_(1.0001)
    stream.query()
    stream.synchronize()
    assert stream.query()
    torch.cuda.synchronize()


def test_stream_priorities():
    least, greatest = torch.cuda.Stream.priority_range()
    assert least == 0 and greatest < 0
    assert torch.cuda.Stream(priority=greatest).priority == greatest


def test_external_stream_and_default_stream():
    stream = torch.cuda.Stream()
    assert torch.cuda.ExternalStream(stream.cuda_stream).cuda_stream == stream.cuda_stream
    assert torch.cuda.default_stream().cuda_stream == 0


def test_two_devices(program):
    finished = program("""
        import torch
        assert torch.cuda.device_count() == 2
        x = torch.arange(1000, dtype=torch.float32, device="cuda:0")
        y = x.to("cuda:1")
        z = y + 1
        assert z.device.index == 1
        torch.cuda.synchronize(1)
        assert z.cpu()[-1] == 1000
        with torch.cuda.device(1):
            assert torch.cuda.current_device() == 1
            assert (torch.ones(3, device="cuda") * 2).device.index == 1
        print("two")
    """, STANDIN_DEVICES="2")
    assert finished.stdout == "two\n"
