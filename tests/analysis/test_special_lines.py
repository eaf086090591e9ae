"""IPython's special syntax is replaced as IPython replaces it, however it is mixed."""

import random
import warnings

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from nbflow.analysis.source import transform

PARTS = (
    "%matplotlib inline", "!echo it's", "!echo :(", "!!ls", "x = !ls", "y = %pwd", "f?", "f??", "?f", "%time?",
    "!a \\\n  b", "x = %time \\\n  b", "!echo '''", "'''text\n%no\n'''", "f(1,\n  2)", "if x:", "    !echo",
    "    y = %pwd", "        %cd", "    z = 1", "  w = 2", "", "# !no", "  # %no", "x = 1", "1 + ?", "/f 1", ",f a",
    ";f b", "/ 1", "f(\n!no\n)", "for i in x:", "    pass", "\tpass", "\f", "a)", "x = 'a\x0cb'", "%", "!",
    "x = [\n  f?\n]", "x = (!ls)", "'a' ?", "2 ?",
)  # fmt: skip


def _by_ipython(text: str) -> list[str] | None:
    manager = TransformerManager()
    lines = text.splitlines(keepends=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed = manager.do_token_transforms(lines)
            compile("".join(changed), "<cell>", "exec")
    except Exception:
        return None
    return [line for line in changed if line.strip()]


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_becomes_what_ipython_makes_of_it(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        text = "\n".join(["pass", *chance.choices(PARTS, k=chance.randint(1, 12))]) + "\n"
        expected = _by_ipython(text)
        if expected is not None:
            assert [line for line in transform(text).splitlines(keepends=True) if line.strip()] == expected, text
            assert transform(text).count("\n") == text.count("\n")
