"""Secrets: nowhere in what a run shows or keeps, whole or in pieces, whatever the step does with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.errors import NotFoundError, OptionError, PlanError
from nbflow.flow.notebook import document_of
from nbflow.flow.options import parse_header
from nbflow.store.serialize.pickler import Dumped, Registry, Unstorable, dump
from nbflow.task.secrets import Mask, hide, spellings, withhold

running = pytest.mark.running
SECRET = "pa$$ <wörd> 'x'"


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


@pytest.mark.parametrize(
    "pieces", [["s3cret"], ["s3", "cret"], list("s3cret"), ["as3c", "rets3c", "ret"], ["s3s3cret"]]
)
def test_a_secret_is_masked_however_it_is_cut(pieces: list[str]) -> None:
    mask = Mask(["s3cret"])
    shown = [mask.output(stream(piece)) for piece in [*pieces, " and s3"]] + mask.rest()
    text = "".join(piece["text"] for piece in shown)
    assert text == "".join([*pieces, " and s3"]).replace("s3cret", "***")


def test_streams_are_masked_each_for_itself() -> None:
    mask = Mask(["abc"])
    shown = [mask.output(stream("a")), mask.output(stream("bc", "stderr")), mask.output(stream("bc!"))]
    assert [piece["text"] for piece in shown] == ["", "bc", "***!"]


def test_every_spelling_is_masked() -> None:
    words = spellings([SECRET])
    for text in (SECRET, repr(SECRET), str({"a": [SECRET]}), f"<b>{SECRET}</b>"):
        assert "rd>" not in hide(text, words), text
    assert hide({"text/html": ["<i>pa$$ &lt;wörd&gt; &#x27;x&#x27;</i>"]}, words) == {"text/html": ["<i>***</i>"]}


def test_values_that_hold_a_secret_are_not_stored() -> None:
    values = {"plain": "x", "token": "s3cret", "inside": [{"auth": ("me", "Bearer s3cret")}], "number": 3}
    found = withhold(dump(values, Registry()), {"TOKEN": "s3cret", "EMPTY": ""})
    kept = {name for each in found if isinstance(each, Dumped) for name in each.names}
    refused = {each.name: (each.reason, each.described.preview) for each in found if isinstance(each, Unstorable)}
    assert kept == {"plain", "number"}
    assert refused == {"token": ("it holds the secret TOKEN", "***"), "inside": ("it holds the secret TOKEN", "***")}


def test_a_secret_step_cannot_be_forced_into_the_kernel() -> None:
    with pytest.raises(OptionError, match="exclude each other"):
        parse_header("fetch --secret TOKEN --here")


# ---------------------------------------------------------------- real runs

FETCH = """%%step fetch --secret TOKEN
import os, sys
from IPython.display import HTML, display
from nbflow import card
token = os.environ["TOKEN"]
print("token", token)
for letter in token:
    print(letter, end="", flush=True)
print(token, file=sys.stderr)
os.write(1, token[:3].encode())
os.write(1, token[3:].encode())
display(HTML(f"<b>{token}</b>"))
card.append(token)
card.append({"auth": [token]})
headers = {"auth": f"Bearer {token}"}
size = len(token)
headers"""
FAIL = """%%step fail --secret TOKEN
raise ValueError("refused: " + os.environ["TOKEN"])"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOKEN", "s3cr-et-V4lue")
    return write(tmp_path / "demo.ipynb", ["import os", FETCH, FAIL, "%%step after\ndoubled = size * 2"])


def write(path: Path, cells: list[str]) -> Path:
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), path.stem))
    return path


def holders(folder: Path, text: str) -> list[str]:
    """Files below a folder, and names of files, that hold a text."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in found if text.encode() in path.read_bytes() or text in str(path)]


@running
def test_a_run_keeps_no_secret(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nbflow", "run", str(notebook), "--json"], capture_output=True, text=True, timeout=100
    )
    assert "s3cr-et-V4lue" not in done.stdout + done.stderr
    assert holders(tmp_path / ".nbflow", "s3cr-et-V4lue") == []
    assert holders(tmp_path / "cache", "s3cr-et-V4lue") == []
    run = nbflow.Run("demo/latest", store=tmp_path / ".nbflow")
    fetch = run["fetch"].task
    assert fetch.stdout.startswith("token ***\n***")
    assert fetch.stdout.count("***") == 3
    assert fetch.stderr == "***\n"
    assert not fetch.artifacts["token"].stored
    assert not fetch.artifacts["headers"].stored
    assert run.data.doubled == 26
    assert run["fail"].task.error is not None
    assert run["fail"].task.error.message == "refused: ***"
    shown = " ".join([repr(run), run._repr_html_(), repr(fetch), run.notebook_with_outputs(), str(fetch.metadata)])
    assert "s3cr-et-V4lue" not in shown
    monkeypatch.setenv("TOKEN", "another-one")
    again = nbflow.run(notebook)
    assert {step.name: step.state for step in again.steps()}["fetch"] == "reused", "a secret is in no key"


@running
def test_a_missing_secret_is_named(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKEN")
    with pytest.raises(PlanError, match="'TOKEN' is set nowhere") as caught:
        nbflow.run(notebook)
    assert (caught.value.step, caught.value.fix) == ("fetch", "export TOKEN=… and start again")
    with pytest.raises(NotFoundError):
        nbflow.Run("demo/latest", store=notebook.parent / ".nbflow")


def run_with_vault(notebook: Path, site: Path, get: str) -> subprocess.CompletedProcess[str]:
    """Run a step with a secret, and a plug-in installed as any package is: a module and its entry point."""
    (site / "vault-1.0.dist-info").mkdir(parents=True)
    (site / "vault.py").write_text(f"class Vault:\n    def get(self, name):\n        {get}\n")
    (site / "vault-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1.0\n")
    (site / "vault-1.0.dist-info" / "entry_points.txt").write_text("[nbflow.secrets]\nvault = vault:Vault\n")
    write(
        notebook,
        ["import os", "%%step fetch --secret TOKEN\nsize = len(os.environ['TOKEN'])\nprint(os.environ['TOKEN'])"],
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKEN"}
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "nbflow", "run", str(notebook)],
        capture_output=True, text=True, timeout=100, env={**environment, "PYTHONPATH": paths},
    )  # fmt: skip


@running
def test_a_provider_gives_secrets(notebook: Path, tmp_path: Path) -> None:
    done = run_with_vault(notebook, tmp_path / "site", "return {'TOKEN': 'from-the-vault'}[name]")
    assert done.returncode == 0, done.stderr
    assert "fetch | ***" in done.stdout
    assert nbflow.Run("demo/latest", store=tmp_path / ".nbflow").data.size == len("from-the-vault")


@running
@pytest.mark.parametrize(
    ("get", "message"),
    [
        ("raise KeyError(name)", "the secret 'TOKEN' is set nowhere"),
        ("return {}.get(name)", "the provider 'vault' gave no text for the secret 'TOKEN': NoneType"),
        ("return b'from-the-vault'", "the provider 'vault' gave no text for the secret 'TOKEN': bytes"),
        ("raise OSError('the vault is closed')", "the provider 'vault' failed on the secret 'TOKEN': OSError: the"),
    ],
)
def test_what_a_provider_cannot_give_is_said_before_anything_runs(
    notebook: Path, tmp_path: Path, get: str, message: str
) -> None:
    done = run_with_vault(notebook, tmp_path / "site", get)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert re.search(r"\n  where: step fetch, .*\n  fix: ", done.stderr)
    assert "fetch" not in done.stdout
