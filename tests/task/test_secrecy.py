"""Secrets: nowhere in what a run shows or keeps, whole or in pieces, whatever the step does with them."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.errors import NotFoundError, OptionError, PlanError
from nbflow.flow.notebook import document_of
from nbflow.flow.options import parse_header
from nbflow.store.serialize.pickler import Dumped, Registry, Unstorable, dump
from nbflow.task.secrets import Mask, hide, spellings, withhold
from tests.support.by_hand import Start

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
    for text in spelt(SECRET):
        assert hide(f"a{text}b", words) == "a***b", text


def spelt(secret: str) -> dict[str, str]:
    """Return a secret in twelve spellings, by what writes it so."""
    data = secret.encode()
    inside = base64.b64encode(b"me:" + data + b"; path=/").decode()
    return {
        secret: "print", repr(secret)[1:-1]: "repr", repr(data)[2:-1]: "bytes", json.dumps(secret)[1:-1]: "JSON",
        json.dumps(secret, ensure_ascii=False)[1:-1]: "JSON as it is", html.escape(secret): "HTML",
        html.escape(secret, quote=False): "HTML between tags", html.escape(json.dumps(secret))[6:-6]: "JSON in HTML",
        urllib.parse.quote(secret): "a path", urllib.parse.quote_plus(secret): "a query", data.hex(): "hexadecimal",
        inside[4 : 4 + len(data) * 4 // 3]: "base64",
    }  # fmt: skip


def test_what_a_library_has_cut_is_masked_too() -> None:
    token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
    words = spellings([token])
    for text in (f"0  {token[:30]}...", f"[{token[:14]}…, 1]", f"a\n{token[:47]}... 2\n{token[:13]}... 3"):
        shown = hide(text, words)
        assert token[:12] not in shown, shown
        assert "***" in shown
    assert hide("eyJhbGciO is how such things begin...", words) == "eyJhbGciO is how such things begin..."


def test_values_that_hold_a_secret_are_not_stored() -> None:
    values = {"plain": "x", "token": "s3cret", "inside": [{"auth": ("me", "Bearer s3cret")}], "number": 3}
    found = withhold(dump(values, Registry()), {"TOKEN": "s3cret", "EMPTY": ""}, declared=True)
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


MANY_WAYS = """%%step many --secret TOKEN
import base64, html, json, os, threading, urllib.parse, warnings
import pandas as pd
from IPython.display import HTML, JSON, display
from nbflow import card
token = os.environ["TOKEN"]
data = token.encode()
class Client:
    def __init__(self):
        self.token, self.lock = token, threading.Lock()
client = Client()
ways = [
    token, repr(token), repr(data), json.dumps(token), json.dumps(token, ensure_ascii=False), html.escape(token),
    html.escape(token, quote=False), html.escape(json.dumps(token)), urllib.parse.quote(token),
    urllib.parse.quote_plus(token), data.hex(), base64.b64encode(b"me:" + data + b"; path=/").decode(),
]
for way in ways:
    print(way)
    warnings.warn(way)
    display(HTML(f"<b>{way}</b>"), {"way": way})
    card.append(way)
    card.append({"auth": [way]})
display(pd.DataFrame({"token": [token * 3]}), JSON({"a": token}))
frame = pd.DataFrame({"token": ways})
several = {f"way {at}": way for at, way in enumerate(ways)}
n = 1"""
OTHERS = ["%%step debug\nm = n\nprint(os.environ.get('TOKEN'), 'TOKEN' in os.environ)",
          "%%step known\nprint(open('notes.txt').read())\nkept = open('notes.txt').read()"]  # fmt: skip


@running
def test_no_file_of_a_run_holds_a_secret_in_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "p<ss'w\"örd & 'more' of it, 0123456789"
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "kept" / "cache"))
    monkeypatch.setenv("TOKEN", token)
    (tmp_path / "notes.txt").write_text(f"a file has it too: {token}")
    path = write(tmp_path / "demo.ipynb", ["import os", MANY_WAYS, *OTHERS])
    store = tmp_path / "kept" / "store"
    run = nbflow.run(path, store=str(store))
    assert run.successful, run.error
    kept = tmp_path / "kept"
    for words in (["show", "demo/latest"], ["logs", "demo/latest/many"], ["card", "demo/latest/many", "-o", "c.html"],
                  ["show", "demo/latest", "--notebook", "n.ipynb"], ["runs", "--json"], ["show", "demo/latest/many"],
                  ["card", "demo/latest", "-o", "all.html"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "nbflow", *words, "--store", str(store)], capture_output=True, cwd=kept, timeout=100
        )
        assert done.returncode == 0, (words, done.stderr)
        (kept / f"{'-'.join(words).replace('/', '-')}.txt").write_bytes(done.stdout + done.stderr)
    (kept / "reprs.txt").write_text(f"{run!r}{run._repr_html_()}{run['many'].task!r}{run['many'].task.metadata}")
    for text, way in spelt(token).items():
        assert holders(kept, text) == [], way
    assert holders(kept, token[:12]) == [], "a beginning that a preview or a table has cut"
    assert run["debug"].task.stdout == "None False\n"
    assert [f.name for f in run.snapshot.findings if f.code == "secret"] == ["TOKEN"]
    assert run["known"].task.stdout == "a file has it too: ***\n"
    assert not run["known"].task.artifacts["kept"].stored
    assert run["many"].task.artifacts["client"].preview == "***"


@running
def test_a_step_that_does_not_declare_a_secret_is_told_how(notebook: Path) -> None:
    write(notebook, ["import os", "%%step fetch --secret TOKEN\nn = len(os.environ['TOKEN'])",
                     "%%step send\nm = os.environ['TOKEN']"])  # fmt: skip
    run = nbflow.run(notebook)
    error = run["send"].task.error
    assert error is not None
    assert (error.type, error.message, error.fix) == ("KeyError", "'TOKEN'", "declare it: %%step send --secret TOKEN")
    assert "TOKEN is a secret: another step declares it, and send does not declare it" in error.traceback
    assert run["fetch"].state == "done"


SET = """%%step sign
os.environ["SERVICE_TOKEN"] = "s3t-by-a-cell" + "-0123"
os.environ["MODE"] = "fast"
done = 1"""


@running
def test_a_secret_that_a_step_sets_is_not_kept(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ["import os", SET, "%%step use\nmode = os.environ['MODE']\nsize = len(os.environ['SERVICE_TOKEN']) + done"]
    run = nbflow.run(write(notebook, cells))
    assert holders(notebook.parent / ".nbflow", "s3t-by-a-cell-0123") == []
    assert holders(notebook.parent / "cache", "s3t-by-a-cell-0123") == []
    error = run["use"].task.error
    assert error is not None
    assert error.fix == "export SERVICE_TOKEN=… and declare it: %%step use --secret SERVICE_TOKEN"
    assert "what sign has set it to is not kept" in error.traceback
    assert [finding.name for finding in run.snapshot.findings if finding.code == "secret"] == ["SERVICE_TOKEN"]
    monkeypatch.setenv("SERVICE_TOKEN", "from-outside")
    cells[2] = cells[2].replace("use", "use --secret SERVICE_TOKEN")
    declared = nbflow.run(write(notebook, cells))
    assert declared.successful, declared.error
    assert (declared.data.mode, declared.data.size) == ("fast", 13)


READERS = {
    "a file of variables": "for _line in open('.env'):\n    _name, _, _value = _line.strip().partition('=')\n"
    "    os.environ[_name] = _value",
    "a person": "import getpass\nos.environ['HOST'] = 'inner' + '-db-7'",
}  # fmt: skip


@running
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_a_file_of_variables_or_a_person_gives_is_not_kept(notebook: Path, reader: str) -> None:
    (notebook.parent / ".env").write_text("HOST=inner-db-7\n")
    run = nbflow.run(write(notebook, ["import os", f"%%step settings\n{reader}\nn = 1", "%%step use\nm = n"]))
    assert run.successful, run.error
    for word in spellings(["inner-db-7"]):
        assert holders(notebook.parent / ".nbflow", word) == []
        assert holders(notebook.parent / "cache", word) == []
    assert [finding.name for finding in run.snapshot.findings if finding.code == "secret"] == ["HOST"]


@running
def test_by_hand_a_step_gets_what_it_declares_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr-et-V4lue")
    kernel = start({
        "os": "import os", "fetch": "%%step fetch --secret TOKEN\nn = len(os.environ['TOKEN'])",
        "look": "%%step look\nfound = os.environ.get('TOKEN')\nm = n", "ask": "%%step ask\nk = os.environ['TOKEN'], n",
        "set": "%%step set\nos.environ['A_KEY'] = 'm4de' + '-here'",
        "use": "%%step use\nlength = len(os.environ['A_KEY'])",
    })  # fmt: skip
    kernel.ok("os", "fetch", "look", "set", "use")
    assert (kernel.value("n"), kernel.value("found"), kernel.value("length")) == ("13", "None", "9")
    assert "TOKEN is a secret" in kernel.execute(kernel.notebook.cells["ask"], "ask").traceback
    assert kernel.value("os.environ['TOKEN']") == "'s3cr-et-V4lue'", "the user's own again"
    folder = kernel.notebook.path.parent
    assert holders(folder, "s3cr-et-V4lue") == []
    assert holders(folder / ".nbflow" / "results", "m4de-here") == []
