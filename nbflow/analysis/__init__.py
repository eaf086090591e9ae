"""A cell's source → what it reads, writes, changes and defines; pure. Begin with `cell.analyse`."""

from nbflow.analysis.cell import analyse, normalise
from nbflow.analysis.result import Analysis

__all__ = ["Analysis", "analyse", "normalise"]
