"""What wheels hold beside the package: the front end, built by Node where that is there, and the examples."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SKIP = "HATCH_JUPYTER_BUILDER_SKIP_NPM"
PLACE = "share/jupyter/labextensions/nbflow"
MISSING = (
    "nbflow is installed without its JupyterLab sidebar and panel, because Node.js is not here to build them; "
    "`pip install nbflow --only-binary nbflow` brings both"
)


class FrontEnd(BuildHookInterface[Any]):
    """Builds the front end unless it is there already, and adds it to wheels."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the front end, and add JupyterLab's part of it and the examples to a wheel."""
        if self.target_name != "wheel":
            return
        built = Path(self.root, "nbflow", "labextension")
        if not (built / "package.json").is_file() and SKIP not in os.environ:
            if shutil.which("node") is None:
                self.app.display_warning(MISSING)
            else:
                self._build(version)
        if version != "standard":
            return
        build_data["force_include"]["examples"] = "nbflow/examples"  # what `nbflow tutorial` writes
        if built.is_dir():
            build_data["shared_data"][str(built)] = PLACE
            build_data["shared_data"][str(Path(self.root, "labextension", "install.json"))] = f"{PLACE}/install.json"

    def _build(self, version: str) -> None:
        from hatch_jupyter_builder import npm_builder

        if version == "standard":
            npm_builder(self.target_name, version, build_cmd="build:prod", npm=["jlpm"])
        else:
            npm_builder(
                self.target_name, version, build_cmd="build", npm=["jlpm"], source_dir="labextension/src",
                build_dir="nbflow/labextension",
            )  # fmt: skip
