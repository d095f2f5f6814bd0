"""Several streams use the same weights at once, and one thread each."""

import argparse
import threading

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("--threads", action="store_true")
parser.add_argument("--update", action="store_true")
options = parser.parse_args()

BLOCKS, STREAMS, ITERATIONS = 60, 3, 8
torch.set_grad_enabled(False)
model = models.stack(BLOCKS)
streams = [torch.cuda.Stream() for _ in range(STREAMS)]
torch.cuda.synchronize()
outputs = {}


def work(number, iteration):
    torch.set_grad_enabled(False)
    with torch.cuda.stream(streams[number]):
        x = models.make_input(10 * number + iteration).to("cuda", non_blocking=True)
        # Each stream its own order, so that one may need what another displaces.
        for index in models.shuffled(BLOCKS)[number * 7:]:
            x = model[index](x)
        outputs[number, iteration] = models.digest(x)


for iteration in range(ITERATIONS):
    if options.threads:
        threads = [threading.Thread(target=work, args=(number, iteration))
                   for number in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        pending = []
        for number in range(STREAMS):
            with torch.cuda.stream(streams[number]):
                x = models.make_input(10 * number + iteration).to("cuda", non_blocking=True)
                for index in models.shuffled(BLOCKS)[number * 7:]:
                    x = model[index](x)
                pending.append(x)
        if options.update:
            # Written on one stream once all have read, read by all afterwards.
            for stream in streams[1:]:
                streams[0].wait_stream(stream)
            with torch.cuda.stream(streams[0]):
                for index in range(iteration, BLOCKS, 11):
                    model[index].first.weight.mul_(0.9)
            for stream in streams[1:]:
                stream.wait_stream(streams[0])
        for number, x in enumerate(pending):
            with torch.cuda.stream(streams[number]):
                outputs[number, iteration] = models.digest(x)

models.report(hashes=[outputs[key] for key in sorted(outputs)],
              weight_bytes=models.weight_bytes(model), iterations=ITERATIONS)
