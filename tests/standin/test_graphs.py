"""Capture and replay of CUDA graphs."""

import torch


def test_a_captured_layer_replays_with_new_input():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64)
    expected = layer(torch.full((8, 64), 2.0))
    layer = layer.cuda()
    x = torch.ones(8, 64, device="cuda")
    with torch.no_grad():
        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for _ in range(3):
                layer(x)
        torch.cuda.current_stream().wait_stream(warm_up)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)
    x.fill_(2.0)
    graph.replay()
    torch.testing.assert_close(y.cpu(), expected)


def test_capture_runs_nothing():
    x = torch.zeros(16, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x.add_(1)
    assert x.cpu().eq(0).all()
    for _ in range(3):
        graph.replay()
    assert x.cpu().eq(3).all()


def test_a_fork_and_join_in_a_capture():
    x, y = torch.ones(16, device="cuda"), torch.zeros(16, device="cuda")
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y.copy_(x)
        torch.cuda.current_stream().wait_stream(side)
        y.add_(1)
    graph.replay()
    torch.cuda.synchronize()
    assert y.cpu().eq(2).all()
