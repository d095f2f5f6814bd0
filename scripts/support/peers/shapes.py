"""What each program of scripts/bench peers shows, and how it is run.

Not here: the programs themselves (programs.py, which needs PyTorch; this does not).
"""


class Shape:
    """`steady`: how many of the last steps are the settled ones (a whole number of
    its rhythm). `loaded`: after how many steps it holds what it needs in such a
    step (later it may hold more for a while). `arms`: those that can run it.
    """

    def __init__(self, shows, tflops=0.034, iterations=12, steady=4, loaded=None, arms=None):
        self.shows, self.tflops, self.arms = shows, tflops, arms
        self.iterations, self.steady, self.loaded = iterations, steady, loaded or iterations


SHAPES = {
    "dit": Shape("three equal layers to a segment of 20 MiB"),
    "unet": Shape("uneven layers, most bytes in the deepest", tflops=0.1),
    "decoder": Shape("keys and values in fixed room"),
    "pipeline": Shape("three models that share segments, one of them eight times",
                      iterations=6, steady=2),
    "decoder-cat": Shape("keys and values joined by cat"),
    "mlp": Shape("a segment to each weight"),
    "decoder-wide": Shape("own segments for the MLPs, shared ones for attention"),
    "small-layers": Shape("weights below 1 MiB, many layers to 20 MiB"),
    "long-layers": Shape("several segments to a layer, none of its own"),
    "sharded": Shape("several segments to a weight"),
    "shared": Shape("four layers run three times, first and last matrix the same"),
    "two-streams": Shape("two chains on two streams"),
    "alternating": Shape("a batch that alternates"),
    "precision": Shape("weights made half and float again", loaded=2),
    "adapters": Shape("low-rank changes merged and taken away", loaded=2),
    # The others' hooks are not made for two threads in one model.
    "threads": Shape("four threads on one model", arms=("ours",)),
    "cancelled": Shape("each third step given up in the middle", steady=6),
}
