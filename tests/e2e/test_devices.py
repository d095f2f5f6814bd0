"""Which of the machine's devices a process sees."""

from harness import assert_same, assert_streamed, reference, run


def test_one_of_two():
    """The second card of the machine is the program's first."""
    arguments = ("forward", "--blocks", 60, "--iterations", 6)
    wanted = reference(*arguments)
    vram = wanted.out["weight_bytes"] // 2
    result = run(*arguments, vram=vram, STANDIN_DEVICES="2", CUDA_VISIBLE_DEVICES="1")
    assert_same(result, wanted)
    rounds = wanted.out["iterations"] - 1
    assert_streamed(result, vram, wanted.account["h2d_bytes"] + rounds * vram)
    assert len(result.account["device_peak_bytes_by_device"]) == 1
