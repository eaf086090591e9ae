"""The built front end goes into the wheel where there is one: without Node, nbflow is installed without it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SKIP = "HATCH_JUPYTER_BUILDER_SKIP_NPM"
PLACE = "share/jupyter/labextensions/nbflow"


class FrontEnd(BuildHookInterface[Any]):
    """Runs after the hook that builds the front end."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add JupyterLab's part to a wheel."""
        built = Path(self.root, "nbflow", "labextension")
        if version != "standard" or self.target_name != "wheel":
            return
        if built.is_dir():
            build_data["shared_data"][str(built)] = PLACE
            build_data["shared_data"][str(Path(self.root, "labextension", "install.json"))] = f"{PLACE}/install.json"
        elif SKIP not in os.environ:
            raise RuntimeError(f"the front end was not built; {SKIP}=1 makes a wheel without it")
