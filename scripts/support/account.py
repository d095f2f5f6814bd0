"""Reads the account the stand-in writes at exit (STANDIN_ACCOUNT).

The account is the device's own book: totals, and a snapshot of the same
counters (a mark) at each torch.cuda.profiler.start() and stop().
"""

import json


class Account:
    def __init__(self, path):
        with open(path) as file:
            self.totals = json.load(file)

    def __getitem__(self, key):
        return self.totals[key]

    def marks(self, label=None):
        return [mark for mark in self.totals["marks"] if label in (None, mark["label"])]

    def steady(self):
        """Counter differences over the program's first start/stop bracket."""
        return Difference(self.marks("start")[0], self.marks("stop")[0])

    def last(self):
        """The snapshot at the last mark: after the program deleted everything."""
        return self.marks()[-1]


class Difference:
    def __init__(self, before, after):
        self.before, self.after = before, after

    def __getitem__(self, key):
        return self.after[key] - self.before[key]

    def host_waits(self):
        """Host calls that blocked. Polls are not among them: the library asks, once and without
        waiting, whose uses are over, to choose what goes first (`query_polls` counts them)."""
        return self["blocking_calls"]
