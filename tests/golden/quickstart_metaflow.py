"""Quickstart: two models for one question

Is a tumour malignant? scikit-learn ships the measurements of 569 biopsies. This notebook loads and cleans them, trains
two models that do not depend on each other, compares them and draws their ROC curves.

Run it cell by cell as any notebook. Or run it as a flow, in a cell with `%flow run` or in a shell with
`nbflow run examples/quickstart.ipynb`: the two models then train side by side, and a second run reuses every result.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve
from sklearn.model_selection import train_test_split
from metaflow import FlowSpec, Parameter, step


class QuickstartFlow(FlowSpec):
    """Quickstart: two models for one question"""

    # ## Parameters
    #
    # Every name here can be set from outside: `nbflow run examples/quickstart.ipynb -p rate=0.2`.
    seed = Parameter("seed", type=int, default=7)
    held_out = Parameter("held_out", type=float, default=0.3, help="share of the biopsies kept for the test")
    trees = Parameter("trees", type=int, default=1000, help="of the forest")
    rate = Parameter("rate", type=float, default=0.05, help="learning rate of the boosting")

    @step
    def start(self):
        self.next(self.load)

    @step
    def load(self):
        """Data

        One row a biopsy; for each of ten properties of the cells the mean, the standard error and the worst value.
        """
        bunch = load_breast_cancer(as_frame=True)
        raw = bunch.data.assign(malignant=(bunch.target == 0))
        print(f"{len(raw)} biopsies, {raw['malignant'].mean():.0%} malignant")
        print(raw.iloc[:4, :6])

        self.bunch = bunch
        self.raw = raw
        self.next(self.clean)

    @step
    def clean(self):
        """Sizes are skewed, so they are taken as logarithms; of two measurements that say the same, one is dropped."""
        raw = self.raw

        features = raw.drop(columns="malignant")
        skewed = features.columns[features.skew() > 1]
        features[skewed] = np.log1p(features[skewed])
        alike = features.corr().abs()
        upper = alike.where(np.triu(np.ones(alike.shape, dtype=bool), k=1))
        redundant = [name for name in upper.columns if (upper[name] > 0.97).any()]
        features = features.drop(columns=redundant)
        print(f"{len(skewed)} columns as logarithms, {len(redundant)} dropped: {', '.join(redundant)}")

        self.features = features
        self.skewed = skewed
        self.alike = alike
        self.upper = upper
        self.redundant = redundant
        self.next(self.split)

    @step
    def split(self):
        features = self.features
        held_out = self.held_out
        raw = self.raw
        seed = self.seed

        X_train, X_test, y_train, y_test = train_test_split(
            features, raw["malignant"], test_size=held_out, random_state=seed, stratify=raw["malignant"]
        )

        self.X_train = X_train
        self.X_test = X_test
        self.y_train = y_train
        self.y_test = y_test
        self.next(self.forest_step, self.boosting_step)

    @step
    def forest_step(self):
        """Two models

        Neither reads what the other writes, so a flow run trains them at the same time.
        """
        X_train = self.X_train
        seed = self.seed
        trees = self.trees
        y_train = self.y_train

        forest = RandomForestClassifier(n_estimators=trees, min_samples_leaf=2, random_state=seed)
        forest.fit(X_train, y_train)
        print(f"forest of {len(forest.estimators_)} trees")

        self.forest = forest
        self.next(self.evaluate)

    @step
    def boosting_step(self):
        X_train = self.X_train
        rate = self.rate
        seed = self.seed
        y_train = self.y_train

        boosting = GradientBoostingClassifier(n_estimators=500, learning_rate=rate, subsample=0.8, random_state=seed)
        boosting.fit(X_train, y_train)
        print(f"boosting, last training loss {boosting.train_score_[-1]:.4f}")

        self.boosting = boosting
        self.next(self.evaluate)

    @step
    def evaluate(self, inputs):
        """Results"""
        self.merge_artifacts([inputs.boosting_step], include=['boosting'])
        self.merge_artifacts([inputs.forest_step])
        X_test = self.X_test
        boosting = self.boosting
        forest = self.forest
        y_test = self.y_test

        chances = pd.DataFrame(
            {"forest": forest.predict_proba(X_test)[:, 1], "boosting": boosting.predict_proba(X_test)[:, 1]}, index=X_test.index
        )
        scores = pd.DataFrame(
            {
                "accuracy": {name: accuracy_score(y_test, chance > 0.5) for name, chance in chances.items()},
                "roc_auc": {name: roc_auc_score(y_test, chance) for name, chance in chances.items()},
                "missed": {name: int((y_test & (chance <= 0.5)).sum()) for name, chance in chances.items()},
            }
        )
        best = scores["roc_auc"].idxmax()
        scores.round(4)

        self.chances = chances
        self.scores = scores
        self.best = best
        self.next(self.before_curves)

    @step
    def before_curves(self):
        self.next(self.curves, self.important)

    @step
    def curves(self):
        chances = self.chances
        scores = self.scores
        y_test = self.y_test

        figure, ax = plt.subplots(figsize=(5, 4))
        for name, chance in chances.items():
            wrong, right, _ = roc_curve(y_test, chance)
            ax.plot(wrong, right, label=f"{name}, {scores.loc[name, 'roc_auc']:.4f}")
        ax.plot([0, 1], [0, 1], color="lightgray", linewidth=1, zorder=0)
        ax.set(xlabel="false alarms", ylabel="tumours found", title="ROC on biopsies never seen")
        ax.legend(loc="lower right")
        plt.show()

        self.figure = figure
        self.ax = ax
        if "name" in locals():
            self.name_ = name
        if "chance" in locals():
            self.chance = chance
        if "wrong" in locals():
            self.wrong = wrong
        if "right" in locals():
            self.right = right
        self.next(self.join_curves_important)

    @step
    def important(self):
        X_train = self.X_train
        boosting = self.boosting
        forest = self.forest

        importance = pd.DataFrame(
            {"forest": forest.feature_importances_, "boosting": boosting.feature_importances_}, index=X_train.columns
        )
        top = importance.mean(axis=1).nlargest(5).index
        importance.loc[top].round(3)

        self.importance = importance
        self.top = top
        self.next(self.join_curves_important)

    @step
    def join_curves_important(self, inputs):
        """Puts together what the branches have left."""
        self.merge_artifacts([inputs.important], include=['importance', 'top'])
        self.merge_artifacts([inputs.curves])
        self.next(self.end)

    @step
    def end(self):
        """Next

        - Change `rate` above and run again: `load`, `clean`, `split` and `forest` are reused.
        - `%flow why boosting` says what would make that step run.
        - `from nbflow import Flow; Flow("quickstart").latest_run.data.scores` reads the result anywhere.
        """


if __name__ == "__main__":
    QuickstartFlow()
