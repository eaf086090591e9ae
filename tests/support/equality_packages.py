"""How values of packages are compared: NumPy, pandas, polars, torch, matplotlib, scikit-learn."""

from __future__ import annotations

import io
from typing import Any

from tests.support.difference import Difference, Walk, show

# Values that fitting measures instead of computing: two plain runs differ in them.
MEASURED = {"refit_time_", "mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time", "_stop_words_id"}


def compare_array(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    found = walk.compare(a.dtype, b.dtype, f"{where}.dtype") or walk.compare(a.shape, b.shape, f"{where}.shape")
    if found is not None:
        return found
    if hasattr(a, "mask"):
        import numpy as np

        left, right = np.ma.getmaskarray(a), np.ma.getmaskarray(b)
        found = compare_array(walk, left, right, f"{where}.mask")
        return found or compare_array(walk, np.asarray(a)[~left], np.asarray(b)[~right], where)
    if a.dtype.names:
        return next((one for n in a.dtype.names if (one := compare_array(walk, a[n], b[n], f"{where}[{n!r}]"))), None)
    if a.dtype.hasobject:
        return walk.sequence(list(a.flat), list(b.flat), f"{where}.flat")
    return _bytes(a, b, where)


def _bytes(a: Any, b: Any, where: str) -> Difference | None:
    """Numbers bit for bit, except that every NaN (and NaT) is one."""
    import numpy as np

    left, right = (np.ascontiguousarray(x).reshape(-1) for x in (a, b))
    kind = left.dtype.kind
    if kind == "c":
        left, right = (x.view(x.real.dtype) for x in (left, right))
    elif kind in "mM":
        left, right = (x.view("i8") for x in (left, right))
    elif kind == "V":
        left, right = (x.view("u1") for x in (left, right))
    same = left == right
    if kind in "fc":
        same = (same & (np.signbit(left) == np.signbit(right))) | (np.isnan(left) & np.isnan(right))
    wrong = np.flatnonzero(~same)
    if not len(wrong):
        return None
    first, more = int(wrong[0]), f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Difference(f"{where}.flat[{first}]{more}", show(left[first]), show(right[first]))


def compare_scalar(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    import numpy as np

    return compare_array(walk, np.asarray(a), np.asarray(b), where)


def compare_dtype(_walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    same = a == b and getattr(a, "metadata", None) == getattr(b, "metadata", None) and repr(a) == repr(b)
    return None if same else Difference(where, show(a), show(b))


def compare_generator(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    return walk.compare(a.bit_generator.state, b.bit_generator.state, f"{where}.bit_generator.state")


def compare_random_state(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    return walk.compare(a.get_state(legacy=False), b.get_state(legacy=False), f"{where}.get_state()")


def compare_frame(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    found = walk.attributes(a, b, ("index", "columns", "attrs"), where)
    if found is not None:
        return found
    columns = ((a.iloc[:, i], b.iloc[:, i], label) for i, label in enumerate(a.columns))
    return next((one for x, y, label in columns if (one := compare_column(walk, x, y, f"{where}[{label!r}]"))), None)


def compare_series(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    return walk.attributes(a, b, ("index", "name", "attrs"), where) or compare_column(walk, a, b, where)


def compare_column(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    return compare_extension(walk, a.array, b.array, where)


def compare_index(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    import pandas as pd

    found = walk.compare(list(a.names), list(b.names), f"{where}.names")
    if found is not None:
        return found
    if isinstance(a, pd.MultiIndex):
        if a.nlevels != b.nlevels:
            return Difference(f"{where}.nlevels", str(a.nlevels), str(b.nlevels))
        return walk.first((a.levels[i], b.levels[i], f"{where}.levels[{i}]") for i in range(a.nlevels)) or next(
            (
                one
                for i in range(a.nlevels)
                if (one := compare_array(walk, a.codes[i], b.codes[i], f"{where}.codes[{i}]"))
            ),
            None,
        )
    if hasattr(a, "freq"):
        found = walk.compare(a.freqstr, b.freqstr, f"{where}.freqstr")
    return found or compare_extension(walk, a.array, b.array, where)


def compare_extension(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    """The array behind a column or an index."""
    import numpy as np

    if type(a) is not type(b):
        return Difference(where, type(a).__name__, type(b).__name__)
    found = compare_dtype(walk, a.dtype, b.dtype, f"{where}.dtype") or walk.compare(len(a), len(b), f"len({where})")
    if found is not None:
        return found
    if hasattr(a, "codes"):
        found = walk.compare(a.categories, b.categories, f"{where}.categories")
        return found or compare_array(walk, np.asarray(a.codes), np.asarray(b.codes), f"{where}.codes")
    if hasattr(a, "_ndarray") and a._ndarray.dtype.kind != "O":
        return compare_array(walk, a._ndarray, b._ndarray, where)
    gaps = compare_array(walk, np.asarray(a.isna()), np.asarray(b.isna()), f"{where}.isna()")
    return gaps or walk.sequence(list(a), list(b), where)


def compare_equals(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    """Polars and Arrow: the schema, then their own exact comparison, in which gaps are equal to gaps."""
    schema = "schema" if hasattr(a, "schema") else "dtype" if hasattr(a, "dtype") else "type"
    left, right = getattr(a, schema), getattr(b, schema)
    if str(left) != str(right):
        return Difference(f"{where}.{schema}", show(left), show(right))
    return None if a.equals(b) else Difference(where, show(a), show(b))


def compare_sparse(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    left, right = a.tocsr(copy=True), b.tocsr(copy=True)
    for one in (left, right):
        one.sum_duplicates()
    return walk.attributes(left, right, ("shape", "indptr", "indices", "data"), where)


def compare_tensor(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    for name in ("dtype", "device", "requires_grad", "shape"):
        if getattr(a, name) != getattr(b, name):
            return Difference(f"{where}.{name}", str(getattr(a, name)), str(getattr(b, name)))
    return compare_array(walk, a.detach().cpu().numpy(), b.detach().cpu().numpy(), where)


def render(figure: Any) -> bytes:
    """A matplotlib figure in, the pixels of its PNG out."""
    import matplotlib as mpl

    mpl.use("Agg", force=True)
    buffer = io.BytesIO()
    with mpl.rc_context({"savefig.dpi": 100, "figure.dpi": 100}):
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def compare_figure(_walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    left, right = render(a), render(b)
    if left == right:
        return None
    return Difference(f"{where}, rendered", f"{len(left)} bytes of PNG", f"{len(right)} bytes of PNG")


def compare_artist(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    """A part of a figure: the same kind at the same place of equal figures."""
    figures = a.get_figure(root=True), b.get_figure(root=True)
    if None in figures:
        return walk.nothing(a, b, where)
    parted = walk.compare(*figures, f"the figure of {where}")  # which draws both: only then they have all their ticks
    place_a, place_b = (
        [x is part for x in figure.findobj()].index(True) for figure, part in zip(figures, (a, b), strict=True)
    )
    return parted or walk.compare(place_a, place_b, f"the place of {where}")


def compare_estimator(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    """Parameters and everything that fitting left; with the same of both, predictions are the same."""
    found = walk.compare(a.get_params(deep=False), b.get_params(deep=False), f"{where}.get_params()")
    return found or walk.compare(_computed(vars(a)), _computed(vars(b)), f"vars({where})")


def is_tree_of_neighbours(value: Any) -> bool:
    return type(value).__module__.startswith("sklearn.neighbors.") and hasattr(value, "get_tree_stats")


def compare_tree(walk: Walk, a: Any, b: Any, where: str) -> Difference | None:
    """What the tree was built from; it counts its queries, which decides nothing."""
    return walk.sequence([*a.get_arrays()], [*b.get_arrays()], f"{where}.get_arrays()")


def _computed(attributes: dict[str, Any]) -> dict[str, Any]:
    """What fitting computed, without the times that it measured."""
    rest = {name: value for name, value in attributes.items() if name not in MEASURED}
    if isinstance(rest.get("cv_results_"), dict):
        rest["cv_results_"] = _computed(rest["cv_results_"])
    return rest
