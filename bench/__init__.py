"""Measurements, printed as tables: `make bench`."""

import os

# With compiled files, as installed packages have them: else what is measured compiles all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
