# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   nbflow:
#     flow: "quickstart"
# ---

# %% tags=["active-py"]
if __name__ == "__main__" and "get_ipython" not in globals():
    from nbflow.cli import run_script

    raise SystemExit(run_script(__file__))

# %% [markdown] id="title"
# # Quickstart: two models for one question
#
# Is a tumour malignant? scikit-learn ships the measurements of 569 biopsies. This notebook loads and cleans them, trains
# two models that do not depend on each other, compares them and draws their ROC curves.
#
# Run it cell by cell as any notebook. Or run it as a flow, in a cell with `%flow run` or in a shell with
# `nbflow run examples/quickstart.ipynb`: the two models then train side by side, and a second run reuses every result.

# %% id="load-nbflow"
# %load_ext nbflow

# %% id="imports"
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve
from sklearn.model_selection import train_test_split

# %matplotlib inline

# %% [markdown] id="about-params"
# ## Parameters
#
# Every name here can be set from outside: `nbflow run examples/quickstart.ipynb -p rate=0.2`.

# %% id="params"
# %%params
seed: int = 7
held_out: float = 0.3  # share of the biopsies kept for the test
trees: int = 1000  # of the forest
rate: float = 0.05  # learning rate of the boosting

# %% [markdown] id="about-data"
# ## Data
#
# One row a biopsy; for each of ten properties of the cells the mean, the standard error and the worst value.

# %% id="load"
# %%step load
bunch = load_breast_cancer(as_frame=True)
raw = bunch.data.assign(malignant=(bunch.target == 0))
print(f"{len(raw)} biopsies, {raw['malignant'].mean():.0%} malignant")
raw.iloc[:4, :6]

# %% [markdown] id="about-clean"
# Sizes are skewed, so they are taken as logarithms; of two measurements that say the same, one is dropped.

# %% id="clean"
# %%step clean
features = raw.drop(columns="malignant")
skewed = features.columns[features.skew() > 1]
features[skewed] = np.log1p(features[skewed])
alike = features.corr().abs()
upper = alike.where(np.triu(np.ones(alike.shape, dtype=bool), k=1))
redundant = [name for name in upper.columns if (upper[name] > 0.97).any()]
features = features.drop(columns=redundant)
print(f"{len(skewed)} columns as logarithms, {len(redundant)} dropped: {', '.join(redundant)}")

# %% id="split"
# %%step split
X_train, X_test, y_train, y_test = train_test_split(
    features, raw["malignant"], test_size=held_out, random_state=seed, stratify=raw["malignant"]
)

# %% [markdown] id="about-models"
# ## Two models
#
# Neither reads what the other writes, so a flow run trains them at the same time.

# %% id="forest"
# %%step forest
forest = RandomForestClassifier(n_estimators=trees, min_samples_leaf=2, random_state=seed)
forest.fit(X_train, y_train)
print(f"forest of {len(forest.estimators_)} trees")

# %% id="boosting"
# %%step boosting
boosting = GradientBoostingClassifier(n_estimators=500, learning_rate=rate, subsample=0.8, random_state=seed)
boosting.fit(X_train, y_train)
print(f"boosting, last training loss {boosting.train_score_[-1]:.4f}")

# %% [markdown] id="about-results"
# ## Results

# %% id="evaluate"
# %%step evaluate
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

# %% id="curves"
# %%step curves
figure, ax = plt.subplots(figsize=(5, 4))
for name, chance in chances.items():
    wrong, right, _ = roc_curve(y_test, chance)
    ax.plot(wrong, right, label=f"{name}, {scores.loc[name, 'roc_auc']:.4f}")
ax.plot([0, 1], [0, 1], color="lightgray", linewidth=1, zorder=0)
ax.set(xlabel="false alarms", ylabel="tumours found", title="ROC on biopsies never seen")
ax.legend(loc="lower right")
plt.show()

# %% id="important"
# %%step important
importance = pd.DataFrame(
    {"forest": forest.feature_importances_, "boosting": boosting.feature_importances_}, index=X_train.columns
)
top = importance.mean(axis=1).nlargest(5).index
importance.loc[top].round(3)

# %% [markdown] id="next"
# ## Next
#
# - Change `rate` above and run again: `load`, `clean`, `split` and `forest` are reused.
# - `%flow why boosting` says what would make that step run.
# - `from nbflow import Flow; Flow("quickstart").latest_run.data.scores` reads the result anywhere.
