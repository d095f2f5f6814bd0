"""torch.compile: Triton's own kernels are compiled and launched, but nobody
knows them here; their results are marked, and reading one is an error."""

SOURCE = """
    import torch
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 64)).cuda()
    compiled = torch.compile(model)
    x = torch.randn(8, 64).cuda()
    with torch.no_grad():
        for _ in range(3):
            y = compiled(x)
    torch.cuda.synchronize()
    assert y.shape == (8, 64)
    print("launched")
    try:
        y.cpu()
    except RuntimeError as error:
        print("read refused")
"""


def test_compiled_model_launches_and_its_unknown_results_cannot_be_read(program, tmp_path):
    finished = program(SOURCE, STANDIN_UNKNOWN="touch", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"),
                       TRITON_CACHE_DIR=str(tmp_path / "triton"))
    assert finished.stdout == "launched\nread refused\n", finished.stdout + finished.stderr


def test_without_touch_the_launch_fails_and_names_the_kernel(program, tmp_path):
    finished = program(SOURCE, fails=True, STANDIN_UNKNOWN="", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"),
                       TRITON_CACHE_DIR=str(tmp_path / "triton"))
    assert finished.returncode != 0
    assert "triton_" in finished.stderr
