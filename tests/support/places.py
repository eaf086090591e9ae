"""Where things of the repository lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TESTS = ROOT / "tests"
STORE = TESTS / "fixtures" / "store-e2625e0"
"""A notebook and the store that commit e2625e0 left of it."""
