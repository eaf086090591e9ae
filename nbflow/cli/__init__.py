"""The command line. Begin with `app`."""

from nbflow.cli.app import main, run_script

__all__ = ["main", "run_script"]
