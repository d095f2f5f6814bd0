"""What each program of scripts/wild shows, and how it is run.

Not here: the programs themselves (programs.py, which needs the libraries; this does not).
"""


class Shape:
    """`steady`: how many of the last steps are the settled ones. `parts`: a launch may use a
    part of a weight only (a row of an embedding, an expert of a stack), so less may cross
    than the least that counts weights as wholes. `own`: it moves weights by itself.
    `loads_twice`: while it loads it holds its weights twice, but not in a step."""

    def __init__(self, shows, library, iterations=14, steady=8, parts=False, own=False,
                 loads_twice=False):
        self.shows, self.library = shows, library
        self.iterations, self.steady, self.parts, self.own = iterations, steady, parts, own
        self.loads_twice = loads_twice


SHAPES = {
    "gpt2": Shape("GPT-2, logits of a prompt", "transformers"),
    "llama": Shape("Llama, grouped heads", "transformers"),
    "qwen": Shape("Qwen2, the embedding is also the head", "transformers"),
    "bert": Shape("BERT, an encoder", "transformers"),
    "t5": Shape("T5, encoder and decoder", "transformers"),
    "whisper": Shape("Whisper, convolutions before the encoder", "transformers"),
    "mixtral": Shape("Mixtral, experts one after another", "transformers", parts=True),
    "generate-greedy": Shape("generate, eight tokens", "transformers", iterations=6, steady=3),
    "generate-static": Shape("generate, static cache", "transformers", iterations=6, steady=3),
    "generate-beams": Shape("generate, two beams", "transformers", iterations=6, steady=3),
    "flux": Shape("Flux transformer, two kinds of blocks", "diffusers"),
    "unet": Shape("Stable Diffusion's UNet, convolutions", "diffusers"),
    "vae": Shape("the decoder of an autoencoder", "diffusers"),
    "cpu-offload": Shape("cpu_offload moves the weights itself", "accelerate", own=True),
    "adapters": Shape("LoRA merged and taken away", "peft"),
    "safetensors": Shape("weights read to the card from a file", "safetensors",
                         loads_twice=True),
    "mmap": Shape("weights from a file mapped by torch.load", "torch"),
}
