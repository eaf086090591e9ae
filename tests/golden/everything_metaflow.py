"""Everything

Each structure of the language once.
"""

import copy
import types
import math
from dataclasses import dataclass
from metaflow import FlowSpec, JSONType, Parameter, catch, step


def caught(failure):
    """What @catch has kept, with the names that the notebook knows; None where nothing failed."""
    if not hasattr(failure, "exception"):
        return failure
    kind = failure.type.rpartition(".")[2]
    return types.SimpleNamespace(type=kind, message=failure.exception, traceback=failure.stacktrace)


# ## Words
#
# A class and a function that reads a name which is rewritten later.
SCALE = 2


@dataclass
class Point:
    x: int
    y: int = 0

    def moved(self):
        return Point(self.x + SCALE, self.y)


def scaled(values):
    return [rate * value for value in values]


rate = 10.0


SCALE = 5


total = 0


class EverythingFlow(FlowSpec):
    """Everything"""

    # ## Parameters
    lr = Parameter("lr", type=float, default=0.1, help="how fast")
    levels = Parameter("levels", type=JSONType, default='[1, 2]')

    @step
    def start(self):
        self.half = self.lr / 2
        self.next(self.load)

    @step
    def load(self):
        """Read by hand."""
        global SCALE
        SCALE = 2

        xs = [3, 1]
        rate = 2.0
        point = Point(1)

        self.xs = xs
        self.rate = rate
        self.point = point
        self.next(self.before_left, self.move, self.before_outer)

    @step
    def before_left(self):
        self.next(self.left, self.right)

    @step
    def left(self):
        global SCALE, rate
        SCALE = 2
        rate = self.rate
        xs = self.xs

        twice = scaled(xs)
        k = 1

        self.twice = twice
        self.k = k
        self.next(self.both)

    @step
    def right(self):
        global SCALE
        SCALE = 2
        xs = self.xs

        thrice = [3 * x for x in xs]
        k = 2

        self.thrice = thrice
        self.k = k
        self.next(self.both)

    @step
    def both(self, inputs):
        self.merge_artifacts([inputs.right], include=['k', 'thrice'])
        self.merge_artifacts([inputs.left])
        global SCALE
        SCALE = 2
        half = self.half
        k = self.k
        lr = self.lr
        thrice = self.thrice
        twice = self.twice

        ten = scaled(twice) + thrice + [k, lr, half]

        self.ten = ten
        self.next(self.join_both_move_outer_sum)

    @step
    def move(self):
        point = self.point

        point = point.moved()

        self.point = point
        self.next(self.join_both_move_outer_sum)

    @step
    def before_outer(self):
        """The items of outer."""
        self.outer_items = list(self.xs)
        self.next(self.outer, foreach="outer_items")

    @step
    def outer(self):
        """For each"""
        x = self.input
        levels = self.levels

        ws = list(range(x))
        n = x * levels[0]

        self.ws = ws
        self.x = x
        self.n = n
        self.item = self.input
        self.inner_items = list(self.ws)
        self.next(self.inner, foreach="inner_items")

    @step
    def inner(self):
        w = self.input
        n = self.n

        v = w * 10 + n

        self.v = v
        self.w = w
        self.next(self.inner_sum)

    @step
    def inner_sum(self, inputs):
        inputs = sorted(inputs, key=lambda task: task.index)
        self.merge_artifacts([inputs[-1]])

        sub = sum(one.v for one in inputs)

        self.sub = sub
        self.next(self.outer_sum)

    @step
    def outer_sum(self, inputs):
        inputs = sorted(inputs, key=lambda task: task.index)
        self.merge_artifacts([inputs[-1]])

        subs = [(one.item, one.index, one.sub) for one in inputs]
        best = max(inputs, key=lambda one: one.sub)
        top = best.sub

        self.subs = subs
        self.top = top
        self.next(self.join_both_move_outer_sum)

    @step
    def join_both_move_outer_sum(self, inputs):
        """Puts together what the branches have left."""
        self.merge_artifacts([inputs.move], include=['point'])
        self.merge_artifacts([inputs.outer_sum], include=['n', 'sub', 'subs', 'top', 'v', 'w', 'ws', 'x'])
        self.merge_artifacts([inputs.both])
        self.next(self.before_tune)

    @step
    def before_tune(self):
        """Decides whether tune runs."""
        self.run_tune = bool(self.top > 100)
        self.next({True: self.tune, False: self.before_use_extra}, condition="run_tune")

    @step
    def tune(self):
        top = self.top

        top = -1
        extra = 1

        self.top = top
        self.extra = extra
        self.next(self.before_use_extra)

    @step
    def before_use_extra(self):
        """Decides whether use_extra runs."""
        self.run_use_extra = hasattr(self, "extra")
        self.next({True: self.use_extra, False: self.grow}, condition="run_use_extra")

    @step
    def use_extra(self):
        extra = self.extra

        y = extra + 1

        self.y = y
        self.next(self.grow)

    @step
    def grow(self):
        top = self.top

        top = top + 30

        self.top = top
        self.grow_turns = getattr(self, "grow_turns", 0) + 1
        self.grow_done = bool(top > 40) or self.grow_turns >= 5
        self.next({True: self.risky, False: self.grow}, condition="grow_done")

    @catch(var="error")
    @step
    def risky(self):
        top = self.top

        try:
            part = 1
            broken = 1 / (top - top)
        finally:
            if "part" in locals():
                self.part = part
            if "broken" in locals():
                self.broken = broken
        self.next(self.before_told)

    @step
    def before_told(self):
        """Decides whether told runs."""
        self.run_told = hasattr(self, "part")
        self.next({True: self.told, False: self.walk}, condition="run_told")

    @step
    def told(self):
        error = caught(self.error)
        part = self.part

        said = None if error is None else (error.type, error.message), part

        self.said = said
        self.next(self.walk)

    @step
    def walk(self):
        global total
        xs = self.xs

        walk_items = []
        for x in xs:
            # walk
            total += x
            square = x * x
            walk_items.append(copy.deepcopy(types.SimpleNamespace(index=len(walk_items), square=square, x=x)))

        if "x" in locals():
            self.x = x
        self.total = total
        if "square" in locals():
            self.square = square
        self.walk_items = walk_items
        self.next(self.walked)

    @step
    def walked(self):
        inputs = self.walk_items

        squares = [one.square for one in inputs]

        self.squares = squares
        self.next(self.end)

    @step
    def end(self):
        point = self.point
        squares = self.squares
        top = self.top
        total = self.total

        last = total, squares, top, math.sqrt(4), point.x

        self.last = last


if __name__ == "__main__":
    EverythingFlow()
