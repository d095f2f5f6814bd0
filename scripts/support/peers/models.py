"""The models of scripts/bench peers: plain PyTorch, in the shapes that real ones have.

Owns: layers and their order of execution (`units`). Not here: what a step does
with them (programs.py), where their weights lie (arms.py).

Sizes are a tenth of real ones, and so are the links they are run at. What
matters is how PyTorch's allocator lays weights out: below 1 MiB many share a
segment of 2 MiB, up to 10 MiB several share one of 20 MiB, above that each has
its own.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def attend(query, key, value, count):
    """Attention of `count` heads; query [tokens, width], key and value [heads, tokens, depth]."""
    query = by_head(query, count)
    weights = torch.softmax(torch.bmm(query, key.transpose(1, 2)) / math.sqrt(query.shape[-1]), -1)
    mixed = torch.bmm(weights, value)
    return mixed.transpose(0, 1).reshape(mixed.shape[1], -1)


def by_head(x, count):
    return x.view(x.shape[0], count, -1).transpose(0, 1).contiguous()


class Transformer(nn.Module):
    """One layer; `conditioned` scales and shifts by a vector as diffusion transformers do."""

    def __init__(self, width, count, conditioned=False):
        super().__init__()
        self.count = count
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        if conditioned:
            self.modulation = nn.Linear(width, 6 * width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.conditioned = conditioned

    def forward(self, x, condition=None):
        shift, scale, gate = [0, 0], [1, 1], [1, 1]
        if self.conditioned:
            parts = self.modulation(condition).chunk(6, -1)
            shift, scale, gate = parts[0:2], [1 + parts[2], 1 + parts[3]], parts[4:6]
        y = self.before_attention(x) * scale[0] + shift[0]
        query, key, value = self.query_key_value(y).chunk(3, -1)
        y = attend(query, by_head(key, self.count), by_head(value, self.count), self.count)
        x = x + self.output(y) * gate[0]
        y = self.before_mlp(x) * scale[1] + shift[1]
        return x + self.down(functional.gelu(self.up(y))) * gate[1]

    def leaves(self):
        first = [self.modulation] if self.conditioned else []
        return first + [self.query_key_value, self.output, self.up, self.down]


class Perceptron(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(functional.gelu(self.up(self.norm(x))))

    def leaves(self):
        return [self.up, self.down]


class Sharded(nn.Module):
    """Wide matrices kept in parts, as tensor-parallel files are: a segment to each part."""

    def __init__(self, width, parts=2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(parts))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(parts))

    def forward(self, x):
        y = self.norm(x)
        middles = [functional.gelu(up(y)) for up in self.up]
        for down, middle in zip(self.down, middles):
            x = x + down(middle)
        return x

    def leaves(self):
        return [*self.up, *self.down]


class Chain(nn.Module):
    """Blocks one after another, between two small layers."""

    BLOCKS = (Transformer, Perceptron, Sharded)

    def __init__(self, inputs, width, outputs, make, count):
        super().__init__()
        self.enter, self.leave = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.blocks = nn.ModuleList(make(width) for _ in range(count))

    def forward(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)

    def units(self):
        return list(self.blocks)


class Diffusion(nn.Module):
    """A diffusion transformer: equal layers, conditioned on the time."""

    def __init__(self, width=312, count=24, heads=6):
        super().__init__()
        self.width = width
        self.enter, self.time = nn.Linear(16, width), nn.Linear(width, width)
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, 16)
        self.blocks = nn.ModuleList(Transformer(width, heads, True) for _ in range(count))

    def forward(self, x, time):
        condition = functional.gelu(self.time(torch.full((1, self.width), time, device=x.device)))
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, condition)
        return self.leave(self.norm(x))

    def units(self):
        return list(self.blocks)


class Upward(nn.Module):
    """A layer of the second half of a U: it takes what the first half left."""

    def __init__(self, width):
        super().__init__()
        self.join, self.layer = nn.Linear(2 * width, width), Transformer(width, 4)

    def forward(self, x, left):
        return self.layer(self.join(torch.cat([x, left], -1)))

    def leaves(self):
        return [self.join, *self.layer.leaves()]


class Unet(nn.Module):
    """Width doubles and tokens shrink level by level: nearly all weights lie in the deepest."""

    def __init__(self, widths=(128, 256, 512, 1024), fold=(4, 4, 2)):
        super().__init__()
        self.fold, self.repeats = fold, [2] * (len(widths) - 1) + [1]
        self.enter, self.leave = nn.Linear(16, widths[0]), nn.Linear(widths[0], 16)
        levels = [width for width, count in zip(widths, self.repeats) for _ in range(count)]
        self.down = nn.ModuleList(Transformer(width, 4) for width in levels)
        self.up = nn.ModuleList(Upward(width) for width in reversed(levels))
        steps = list(zip(widths, widths[1:], fold))
        self.shrink = nn.ModuleList(nn.Linear(a * f, b) for a, b, f in steps)
        self.grow = nn.ModuleList(nn.Linear(b, a * f) for a, b, f in steps)

    def forward(self, x):
        x, left, down, up = self.enter(x), [], iter(self.down), iter(self.up)
        for level, count in enumerate(self.repeats):
            for _ in range(count):
                x = next(down)(x)
                left.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x.reshape(x.shape[0] // self.fold[level], -1))
        for level, count in reversed(list(enumerate(self.repeats))):
            for _ in range(count):
                x = next(up)(x, left.pop())
            if level > 0:
                x = self.grow[level - 1](x)
                x = x.reshape(x.shape[0] * self.fold[level - 1], -1)
        return self.leave(x)

    def units(self):
        order, down, up = [], iter(self.down), iter(self.up)
        for level, count in enumerate(self.repeats):
            order += [next(down) for _ in range(count)] + list(self.shrink[level:level + 1])
        for level, count in reversed(list(enumerate(self.repeats))):
            order += [next(up) for _ in range(count)] + ([self.grow[level - 1]] if level else [])
        return order


class Cached(nn.Module):
    """A layer of a decoder with its keys and values: in fixed room, or joined with cat."""

    def __init__(self, width, count, room):
        super().__init__()
        self.count, self.room, self.kept = count, room, None
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        for name in ("query", "key", "value", "output"):
            setattr(self, name, nn.Linear(width, width, bias=False))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, x, position):
        y = self.before_attention(x)
        key, value = by_head(self.key(y), self.count), by_head(self.value(y), self.count)
        if self.room:
            if self.kept is None:
                shape = (self.count, self.room, key.shape[2])
                self.kept = [torch.zeros(shape, device=x.device) for _ in range(2)]
            upto = position + key.shape[1]
            for kept, new in zip(self.kept, (key, value)):
                kept[:, position:upto].copy_(new)
            key, value = (kept[:, :upto] for kept in self.kept)
        else:
            if self.kept is not None:
                key, value = (torch.cat([kept, new], 1)
                              for kept, new in zip(self.kept, (key, value)))
            self.kept = [key, value]
        x = x + self.output(attend(self.query(y), key, value, self.count))
        y = self.before_mlp(x)
        return x + self.down(torch.sigmoid(self.gate(y)) * self.up(y))

    def leaves(self):
        return [self.key, self.value, self.query, self.output, self.gate, self.up, self.down]


class Decoder(nn.Module):
    def __init__(self, width, count, room, tied=False, words=1000):
        super().__init__()
        self.position = 0
        self.words = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Cached(width, 4, room) for _ in range(count))
        self.head = nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x, self.position)
        self.position += tokens.shape[0]
        return self.head(x[-1:])

    def units(self):
        return list(self.layers)


class Repeated(nn.Module):
    """Few distinct layers, each run several times; the last product reuses the first matrix."""

    def __init__(self, width=704, distinct=4, rounds=3, words=4000):
        super().__init__()
        self.rounds = rounds
        self.words = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Transformer(width, 8) for _ in range(distinct))
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens)
        for _ in range(self.rounds):
            for block in self.blocks:
                x = block(x)
        return self.head(x[-1:])

    def units(self):
        return list(self.blocks) * self.rounds


class Branches(nn.Module):
    """Two independent chains, each on a stream of its own, that meet at the end."""

    def __init__(self, width=312, count=12):
        super().__init__()
        self.left, self.right = (Chain(16, width, 16, lambda w: Transformer(w, 6), count)
                                 for _ in range(2))
        self.streams = None

    def forward(self, x):
        if self.streams is None:
            self.streams = [torch.cuda.Stream() for _ in range(2)]
        now, found = torch.cuda.current_stream(), []
        for stream, chain in zip(self.streams, (self.left, self.right)):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                found.append(chain(x))
        for stream, y in zip(self.streams, found):
            now.wait_stream(stream)
            y.record_stream(now)
        return found[0] + found[1]

    def units(self):
        return self.left.units() + self.right.units()


def leaves(unit):
    """The layers of a unit that hold nearly all of its weights, in order."""
    return unit.leaves() if hasattr(unit, "leaves") else [unit]
