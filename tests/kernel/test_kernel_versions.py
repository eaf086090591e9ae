"""The comms with other versions of ipykernel than the one that is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("version", ["6.31.0", "7.1.0"])
def test_the_comms_with_another_ipykernel(version: str, tmp_path: Path) -> None:
    place = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place)]
    subprocess.run([*install, f"ipykernel=={version}"], check=True, timeout=300)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(place), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    ask = [sys.executable, "-c", "import ipykernel; print(ipykernel.__version__)"]
    told = subprocess.run(ask, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout
    assert told.strip() == version
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/page/test_comm.py"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
