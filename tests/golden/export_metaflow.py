"""From notebook to Metaflow

How many bicycles will be rented tomorrow? A ridge regression on the days before, its strength chosen on days that it has
not seen. Small enough to run anywhere; the last cells turn the notebook into a Metaflow flow.
"""

import math
import numpy as np
from metaflow import FlowSpec, JSONType, Parameter, card, retry, step


# Each row holds the days before one day, and that day as the target.
def windows_of(series, width):
    """A series in; its windows of `width` values, and the value behind each, out."""
    rows = np.array([series[at : at + width] for at in range(len(series) - width)])
    return rows, series[width:]


class BikesFlow(FlowSpec):
    """From notebook to Metaflow"""

    # ## Parameters
    #
    # Every name here becomes a `Parameter` of the flow: `python bikes_flow.py run --days 200`.
    days = Parameter("days", type=int, default=120, help="of history")
    lags = Parameter("lags", type=int, default=7, help="days that one forecast looks back")
    strengths = Parameter("strengths", type=JSONType, default='[0.1, 1.0, 10.0]', help="of the ridge regression, to choose from")

    @step
    def start(self):
        self.next(self.load)

    @step
    def load(self):
        """Data

        A year's swing, a week's swing, and chance.
        """
        days = self.days

        chance = np.random.default_rng(7)
        day = np.arange(days)
        rented = 200 + 80 * np.sin(2 * math.pi * day / 365) + 30 * np.cos(2 * math.pi * day / 7) + chance.normal(0, 5, days)
        print(f"{days} days, {rented.mean():.0f} bicycles a day")

        self.chance = chance
        self.day = day
        self.rented = rented
        self.next(self.split)

    @step
    def split(self):
        lags = self.lags
        rented = self.rented

        X, y = windows_of(rented, lags)
        half = len(y) // 2
        centre = X[:half].mean(axis=0)

        self.X = X
        self.y = y
        self.half = half
        self.centre = centre
        self.fit_items = list(self.strengths)
        self.next(self.fit, foreach="fit_items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def fit(self):
        """One model for each strength

        The strengths do not depend on each other: they run side by side, here and in Metaflow.
        """
        strength = self.input
        X = self.X
        centre = self.centre
        half = self.half
        lags = self.lags
        y = self.y

        A = X[:half] - centre
        weights = np.linalg.solve(A.T @ A + strength * np.eye(lags), A.T @ (y[:half] - y[:half].mean()))

        self.A = A
        self.weights = weights
        self.strength = strength
        self.next(self.score)

    @step
    def score(self):
        X = self.X
        centre = self.centre
        half = self.half
        weights = self.weights
        y = self.y

        forecast = (X[half:] - centre) @ weights + y[:half].mean()
        error = float(np.sqrt(np.mean((forecast - y[half:]) ** 2)))

        self.forecast = forecast
        self.error = error
        self.next(self.choose)

    @step
    def choose(self, inputs):
        """The best of them"""
        inputs = sorted(inputs, key=lambda task: task.index)
        self.merge_artifacts([inputs[-1]])

        errors = {one.strength: round(one.error, 3) for one in inputs}
        best = min(inputs, key=lambda one: one.error)
        chosen, model = best.strength, best.weights
        print(errors)

        self.errors = errors
        self.chosen = chosen
        self.model = model
        self.next(self.report)

    @card
    @step
    def report(self):
        chosen = self.chosen
        errors = self.errors

        said = f"strength {chosen:g}: off by {errors[chosen]:.1f} bicycles a day"
        print(said)

        self.said = said
        self.next(self.end)

    @step
    def end(self):
        """From here on it is Metaflow's: `python bikes_flow.py run`, and with its own deployers
        `python bikes_flow.py argo-workflows create`. docs/export.md tells more.
        """


if __name__ == "__main__":
    BikesFlow()
