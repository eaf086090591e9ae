"""The two comms of a real kernel, heard and spoken to as a page does."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.jsonutil import json_default

import nbflow
from nbflow.page.messages import CONTROL, EVENTS, PROTOCOL
from tests.support.kernel import Kernel, NotebookFile
from tests.support.waiting import eventually

pytestmark = pytest.mark.running

CELLS = {
    "params": "%%params\nrate: float = 2.0",
    "load": "%%step load\nrows = [1, 2, 3]\nprint('loaded')",
    "scale": "%%step scale\nscaled = [row * rate for row in rows]",
    "slow": "%%step slow\nimport time\ntime.sleep(scaled[0] * 15)",
}


def packed(message: Any) -> bytes:
    """A message as a browser writes it: half of a character is an escape."""
    return json.dumps(message, default=json_default).encode()


class Page:
    """A page's side of the comms; every message of a kind is kept as it arrives."""

    def __init__(self, kernel: Kernel, *, subshell: bool = True) -> None:
        self.kernel = kernel
        self.client = kernel.client
        self.client.session.pack = packed
        self.comm = uuid.uuid4().hex
        self.numbers = itertools.count(1)
        self.heard: list[dict[str, Any]] = []
        self.published: list[dict[str, Any]] = []  # every message that was read while something was waited for
        self.subshell = self._subshell() if subshell and self.can_talk_meanwhile() else None
        self._send("comm_open", {"comm_id": self.comm, "target_name": CONTROL, "data": {}})

    def can_talk_meanwhile(self) -> bool:
        """Whether the kernel has threads that answer while a cell runs: ipykernel has since version 7."""
        sent = self.client.kernel_info()
        reply = next(m for m in iter(self.client.get_shell_msg, None) if m["parent_header"].get("msg_id") == sent)
        return "kernel subshells" in reply["content"].get("supported_features", ())

    def _subshell(self) -> str:
        message = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(message)
        reply = self.client.get_control_msg(timeout=10)
        return str(reply["content"]["subshell_id"])

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        message = self.client.session.msg(kind, content)
        message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)

    def send(self, kind: str, **content: Any) -> str:
        identity = str(next(self.numbers))
        self._send("comm_msg", {"comm_id": self.comm, "data": {"kind": kind, "id": identity, **content}})
        return identity

    def send_to_panel(self, panel: str, kind: str, **content: Any) -> str:
        """A command from a panel in a cell, whose comm has this id."""
        identity = str(next(self.numbers))
        data = {"method": "custom", "content": {"kind": kind, "id": identity, **content}}
        self._send("comm_msg", {"comm_id": panel, "data": data})
        return identity

    def hear(self, found: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> dict[str, Any]:
        """The first of our messages that `found` accepts."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                message = self.client.get_iopub_msg(timeout=0.1)
                self.published.append(message)
                data = message["content"].get("data", {}) if message["msg_type"] == "comm_msg" else {}
                data = data.get("content", data)  # of a panel
                if isinstance(data, dict) and data.get("nbflow") == PROTOCOL:
                    self.heard.append(data)
                    if found(data):
                        return data
        raise AssertionError("nothing of the kind was heard")

    def ask(self, kind: str, **content: Any) -> dict[str, Any]:
        """A command's acknowledgement."""
        identity = self.send(kind, **content)
        return self.hear(lambda data: data["kind"] == "ack" and data["reply_to"] == identity)

    def outputs(self, message: str) -> list[dict[str, Any]]:
        """All that a request has published, once it has ended."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.published if one["parent_header"].get("msg_id") == message]

        while not any(one["content"].get("execution_state") == "idle" for one in found()):
            self.published.append(self.client.get_iopub_msg(timeout=20))
        return found()

    def snapshot(self) -> dict[str, Any]:
        self.send("hello")
        return self.hear(lambda data: data["kind"] == "snapshot")

    def settled(self, status: str) -> dict[str, Any]:
        """The message that shows the run in that status."""
        return self.hear(lambda data: (data.get("run") or {}).get("status") == status)


def reply(kernel: Kernel, message: str) -> dict[str, Any]:
    """A request's reply; what it published meanwhile may have been dropped by `hear`."""
    found = (kernel.client.get_shell_msg(timeout=20) for _ in itertools.count())
    return dict(next(one["content"] for one in found if one["parent_header"].get("msg_id") == message))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", **CELLS})) as made:
        yield made


def test_a_page_finds_the_kernel_and_draws(kernel: Kernel) -> None:
    reply = kernel.client.comm_info(EVENTS)
    found = next(m for m in iter(kernel.client.get_shell_msg, None) if m["parent_header"].get("msg_id") == reply)
    assert len(found["content"]["comms"]) == 1
    page = Page(kernel)
    assert page.ask("hello")["ok"]
    snapshot = page.snapshot()
    assert [step["label"] for step in snapshot["steps"]] == ["parameters: rate", "load", "scale", "slow"]
    assert snapshot["order"] == "the saved notebook"
    kernel.send(CELLS["load"], "load")
    page.hear(lambda data: any((s["name"], s["state"]) == ("load", "done") for s in data.get("steps", ())))


def test_a_run_its_log_and_its_place_in_history(kernel: Kernel) -> None:
    page = Page(kernel)
    page.snapshot()
    assert page.ask("run", steps=["scale"], params={"rate": "3"}, fresh=False)["ok"]
    done = page.settled("done")
    run = done["run"]["run"]
    told = [data for data in page.heard if data["kind"] in ("snapshot", "change")]
    assert all(now["base"] == before["seq"] for before, now in itertools.pairwise(told) if now["kind"] == "change")
    assert any(data["kind"] == "change" and len(data["steps"]) < 4 for data in told)
    page.send("detail", run=run, step="load", index=[])
    detail = page.hear(lambda data: data["kind"] == "detail")
    assert detail["log"] == "loaded\n"
    assert [one["name"] for one in detail["artifacts"]] == ["rows"]
    page.send("detail", run=run, step="scale", index=[])
    assert "[3.0, 6.0, 9.0]" in page.hear(lambda data: data["kind"] == "detail")["artifacts"][0]["preview"]
    page.send("card", run=run, step="load", index=[], whole=False, known="")
    assert page.hear(lambda data: data["kind"] == "card")["page"] == ""  # its code has shown nothing
    page.send("card", run=run, step="load", index=[], whole=True, known="")
    card = page.hear(lambda data: data["kind"] == "card")
    assert "loaded" in card["page"]
    page.send("card", run=run, step="load", index=[], whole=True, known=card["digest"])
    assert page.hear(lambda data: data["kind"] == "card")["page"] is None
    page.send("runs")
    assert [row["run"] for row in page.hear(lambda data: data["kind"] == "runs")["runs"]] == [run]
    page.send("past", run=run)
    past = page.hear(lambda data: data["kind"] == "past")["snapshot"]
    assert {step["name"]: step["state"] for step in past["steps"]}["scale"] == "done"


def test_commands_are_heard_while_a_cell_blocks(kernel: Kernel) -> None:
    page = Page(kernel)
    if not page.can_talk_meanwhile():
        pytest.skip("before version 7 ipykernel hears nothing while a cell runs; pages interrupt it instead")
    page.snapshot()
    message = kernel.send("%flow run", "run")
    page.hear(lambda data: any(s["name"] == "slow" and s["state"] == "running" for s in data.get("steps", ())))
    assert not page.ask("run", steps=[], params={}, fresh=False)["ok"]
    began = time.monotonic()
    assert page.ask("cancel")["ok"]
    page.settled("cancelled")
    assert time.monotonic() - began < 1
    assert reply(kernel, message)["ename"] == "RunFailed"
    assert not page.ask("cancel")["ok"]


FIGURE = """import matplotlib.pyplot as plt, pathlib, time
figure, axes = plt.subplots(figsize=(3, 2))
print('begun', flush=True)
while not pathlib.Path('go').exists():
    time.sleep(0.01)
axes.plot([0, 1], linewidth=30, color='black')
plt.show()
plt.get_fignums()"""

PANEL = """from nbflow.page.comm import pages_of
from nbflow.page.widget import Panel
panel = Panel(pages_of(get_ipython()))
panel.model_id"""


def plain_picture(folder: Path) -> str:
    """The picture that the cell shows where nbflow is not loaded."""
    with Kernel(NotebookFile(folder / "plain.ipynb", {"figure": FIGURE}), load=False) as made:
        return str(made.ok("figure").displayed[0]["image/png"])


@pytest.mark.parametrize("header", ["", "%%step figure\n"], ids=["plain", "step"])
def test_messages_of_pages_leave_the_figures_of_a_running_cell_alone(header: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    expected = plain_picture(tmp_path)
    go.unlink()
    notebook = NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", "figure": header + FIGURE})
    with Kernel(notebook) as kernel:
        page = Page(kernel)
        if not page.can_talk_meanwhile():
            pytest.skip("before version 7 ipykernel hears nothing while a cell runs; pages interrupt it instead")
        panel = kernel.execute(PANEL, "panel").result.strip("'")
        message = kernel.send(notebook.cells["figure"], "figure")
        while not any(one["msg_type"] == "stream" for one in page.published):
            page.ask("hello")
        for send in (page.send, lambda kind: page.send_to_panel(panel, kind)):
            for kind in ("hello", "check", "nothing of the kind"):
                identity = send(kind)
                page.hear(lambda data, this=identity: data["kind"] == "ack" and data["reply_to"] == this)
        go.touch()
        assert reply(kernel, message)["status"] == "ok"
        outputs = page.outputs(message)
        pictures = [one["content"]["data"]["image/png"] for one in outputs if one["msg_type"] == "display_data"]
        assert pictures == [expected]
        assert [one["content"]["data"]["text/plain"] for one in outputs if one["msg_type"] == "execute_result"] == [
            "[]"
        ]


SILENT = """%%step silent
import pathlib, time
print('begun', flush=True)
while not pathlib.Path('go').exists():
    time.sleep(0.01)
left = 'whole'"""


def test_messages_for_others_do_not_end_a_silent_request(tmp_path: Path) -> None:
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", "silent": SILENT})) as kernel:
        page = Page(kernel)
        if not page.can_talk_meanwhile():
            pytest.skip("before version 7 ipykernel hears nothing while a cell runs; pages interrupt it instead")
        kernel.execute("accept = lambda comm, _: comm.on_msg(lambda _: None)")
        kernel.execute("get_ipython().kernel.comm_manager.register_target('other', accept)")
        message = kernel.send(SILENT, "silent", silent=True)
        while not any(one["msg_type"] == "stream" for one in page.published):
            page.ask("hello")
        page._send("comm_open", {"comm_id": "theirs", "target_name": "other", "data": {}})
        page._send("comm_msg", {"comm_id": "theirs", "data": {}})
        page.ask("hello")
        (tmp_path / "go").touch()
        assert reply(kernel, message)["status"] == "ok"
        assert kernel.execute("left").result == "'whole'"
        step = next(one for one in page.snapshot()["steps"] if one["name"] == "silent")
        assert step["state"] == "done"
        page.send("detail", run=page.snapshot()["run"]["run"], step="silent", index=[])
        assert [one["name"] for one in page.hear(lambda data: data["kind"] == "detail")["artifacts"]] == ["left"]


STRANGE: list[Any] = [
    {"kind": "document", "cells": 5}, {"kind": "document", "cells": [{"id": "x"}]}, {"kind": "run", "steps": 5},
    {"kind": "run", "params": []}, {"kind": "detail"}, {"kind": "detail", "run": "x", "step": "y", "index": "z"},
    {"kind": "card"}, {"kind": "past"}, {"kind": ["list"]}, {"kind": None}, {"kind": "resume", "run": {}},
    {"kind": "past", "run": "../.."}, {"kind": "detail", "run": "none", "step": "none", "index": []},
    {"kind": "past", "run": "\ud800"}, {"kind": "detail", "run": 1, "step": [], "index": [1e300]}, {"kind": "\ud800"},
    {"kind": "check", "header": {"a": 1}}, {"kind": "check", "header": "%%step \ud800"},
    {"kind": "card", "run": "x" * 100_000, "step": "y", "index": [10**400]}, {"kind": {"a": {"b": []}}},
    {"kind": "run", "steps": ["none", None, {}], "params": {"\ud800": "\x00"}}, {"kind": "x" * 1_000_000},
    {"kind": "document", "cells": [None]}, {"kind": "document", "cells": {"a": 1}}, {"kind": "run", "steps": "load"},
    {"kind": "document", "cells": [{"id": "x", "source": "y", "tags": None}]}, {"kind": True}, {"nothing": 1},
]  # fmt: skip


def test_strange_messages_are_answered_and_end_nothing(kernel: Kernel) -> None:
    page = Page(kernel)
    page.snapshot()
    for strange in STRANGE:
        identity = str(next(page.numbers))
        page._send("comm_msg", {"comm_id": page.comm, "data": {"id": identity, **strange}})
        page.hear(lambda data, this=identity: data["kind"] == "ack" and data["reply_to"] == this)  # type: ignore[misc]
    for nothing in (None, 5, "text", [1], {}, {"id": {"a": []}}, {"id": "\ud800", "kind": "hello"}):
        page._send("comm_msg", {"comm_id": page.comm, "data": nothing})
    page._send("comm_msg", {"comm_id": page.comm})
    page._send("comm_open", {"comm_id": "half", "target_name": CONTROL})
    page._send("comm_msg", {"comm_id": "half", "data": {"kind": "hello"}})
    page._send("comm_msg", {"comm_id": "nobody", "data": {"kind": "hello"}})
    page._send("comm_close", {"comm_id": "half"})
    page._send("comm_msg", {"comm_id": "half", "data": {"kind": "hello"}})
    assert page.ask("hello")["ok"]
    kernel.execute(CELLS["load"], "load")
    page.hear(lambda data: any((s["name"], s["state"]) == ("load", "done") for s in data.get("steps", ())))


def test_what_cannot_be_told_does_not_end_the_telling(kernel: Kernel) -> None:
    page = Page(kernel)
    page.snapshot()
    kernel.execute("from nbflow.page import publisher as pages\nwhole, pages.page = pages.page, None")
    page.send("hello")
    told = page.hear(lambda data: data["kind"] == "refused")
    assert "could not tell this page what is new: TypeError" in told["text"]
    kernel.execute("pages.page = whole")
    assert page.snapshot()["order"] == "the saved notebook"
    kernel.execute(
        "from nbflow.page.comm import pages_of\npages_of(get_ipython()).listen(None)"
    )  # a channel that is broken
    assert page.snapshot()["steps"]


BROKEN = """
import sys
from nbflow.page import publisher as pages

class Silent(BaseException):
    def __str__(self):
        raise SystemExit(1)

def broken(*_, **__):
    raise Silent

class Gone:
    def write(self, _):
        raise OSError("the terminal has gone")
    flush = write

whole, pages.page, sys.__stderr__ = pages.page, broken, Gone()
"""


def test_nothing_ends_the_thread_that_tells(kernel: Kernel) -> None:
    """An exception of no usual kind that cannot be printed, many times: it is told once, and then all is well."""
    page = Page(kernel)
    page.snapshot()
    kernel.execute(BROKEN)
    page.send("hello")
    page.hear(lambda data: data["kind"] == "refused")
    for _ in range(3):
        assert page.ask("hello")["ok"]
    kernel.execute("from nbflow.page.comm import pages_of\nalive = pages_of(get_ipython())._thread.is_alive()\nalive")
    kernel.execute("pages.page = whole")
    assert page.snapshot()["steps"]
    assert sum(data["kind"] == "refused" for data in page.heard) == 1
    kernel.execute(CELLS["load"], "load")
    page.hear(lambda data: any((s["name"], s["state"]) == ("load", "done") for s in data.get("steps", ())))


def test_half_of_a_character_in_the_document(kernel: Kernel) -> None:
    """A page may send what JSON can say and UTF-8 cannot: everyone hears on."""
    page = Page(kernel)
    page.snapshot()
    cells = [{"id": name, "source": source, "tags": []} for name, source in CELLS.items()]
    odd = {"id": "odd", "source": "%%step odd\n# \ud800\nz = '\udc80'", "tags": ["\ud800"]}
    assert page.ask("document", cells=[*cells, odd])["ok"]
    assert page.snapshot()["order"] == "the cells in the front end"
    assert page.ask("document", cells=cells)["ok"]
    page.hear(lambda data: data["kind"] == "snapshot" and [s["name"] for s in data["steps"]][-1] == "slow")
    kernel.execute(CELLS["load"], "load")
    page.hear(lambda data: any((s["name"], s["state"]) == ("load", "done") for s in data.get("steps", ())))


def test_first_commands_in_the_main_thread_do_not_bind_later_ones(kernel: Kernel) -> None:
    page = Page(kernel, subshell=False)
    if not page.can_talk_meanwhile():
        pytest.skip("before version 7 ipykernel hears nothing while a cell runs; pages interrupt it instead")
    page.ask("hello")
    page.subshell = page._subshell()
    waits = "while not pathlib.Path('go').exists():\n    time.sleep(0.01)"
    message = kernel.send(f"import pathlib, time\npathlib.Path('begun').touch()\n{waits}", "scratch")
    eventually(kernel.notebook.path.with_name("begun").exists)
    page.ask("hello")  # answered before the cell may end
    kernel.notebook.path.with_name("go").touch()
    assert reply(kernel, message)["status"] == "ok"


def test_a_step_by_hand_is_cancelled(kernel: Kernel) -> None:
    page = Page(kernel)
    if not page.can_talk_meanwhile():
        pytest.skip("before version 7 ipykernel hears nothing while a cell runs; pages interrupt it instead")
    page.snapshot()
    for name in ("params", "load", "scale"):
        kernel.execute(CELLS[name], name)
    message = kernel.send(CELLS["slow"], "slow")
    page.hear(lambda data: any(s["name"] == "slow" and s["state"] == "running" for s in data.get("steps", ())))
    assert page.ask("cancel")["ok"]
    assert reply(kernel, message)["ename"] == "KeyboardInterrupt"


def test_what_cannot_be_is_refused(kernel: Kernel) -> None:
    page = Page(kernel)
    page.snapshot()
    page.send("run", steps=[], params={"rate": "fast"}, fresh=False)
    assert "rate" in page.hear(lambda data: data["kind"] == "refused")["text"]
    page.send("run", steps=["nothing"], params={}, fresh=False)
    assert "nothing" in page.hear(lambda data: data["kind"] == "refused")["text"]
    assert not page.ask("resume", run="")["ok"]
    assert not page.ask("dance")["ok"]
    assert page.ask("check", header="%%step train --retry 2  # twice")["ok"]
    wrong = page.ask("check", header="%%step train --retri 2")
    assert "retri" in wrong["text"]


def test_a_datastore_that_came_with_the_folder_is_asked_about(tmp_path: Path) -> None:
    """Nothing of it is reused before the page's question is answered, and the answer is for that datastore alone."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    theirs.mkdir()
    NotebookFile(theirs / "flow.ipynb", {"ext": "%load_ext nbflow", "load": CELLS["load"]})
    assert nbflow.run(theirs / "flow.ipynb", store=theirs / ".nbflow").successful
    shutil.copytree(theirs, mine)
    with Kernel(NotebookFile(mine / "flow.ipynb", {"ext": "%load_ext nbflow", "load": CELLS["load"]})) as kernel:
        page = Page(kernel)
        page.send("hello")
        asked = page.hear(lambda data: data["kind"] == "snapshot" and data["untrusted"] != "")["untrusted"]
        assert asked == str(mine / ".nbflow")
        assert not page.ask("trust", place=str(theirs / ".nbflow"))["ok"], "another one than the page has shown"
        page.send("run", steps=[], params={}, fresh=False)
        assert "was not made by you" in page.hear(lambda data: data["kind"] == "refused")["text"]
        assert page.ask("trust", place=asked)["ok"]
        page.hear(lambda data: data["kind"] == "snapshot" and data["untrusted"] == "")
        page.send("run", steps=[], params={}, fresh=False)
        assert [step["state"] for step in page.settled("done")["steps"]] == ["reused"]
        assert not page.ask("trust", place=asked)["ok"], "nobody has to say so again"


def test_a_page_verifies_the_notebook(tmp_path: Path) -> None:
    cells = {"a": "%%step a\nx = 1\nprint(x)", "b": "%%step b\ny = x + 1"}
    with Kernel(NotebookFile(tmp_path / "flow.ipynb", cells)) as kernel:
        page = Page(kernel)
        assert page.snapshot()["verified"] is None
        ack = page.ask("verify")
        assert ack["ok"], ack
        said = page.hear(lambda message: message["kind"] == "said", 90)
        assert said["text"].startswith("equal: 2 values, 1 display, 0 files\n")
        page.hear(lambda message: message["kind"] == "snapshot" and message["verified"] is not None)
        assert kernel.execute("%flow run --verified").status == "ok"


def test_the_page_brings_the_document(kernel: Kernel) -> None:
    page = Page(kernel)
    page.snapshot()
    cells = [{"id": "only", "source": "%%step only\nx = 1", "tags": []}]
    page.send("document", cells=cells)
    snapshot = page.hear(lambda data: data["kind"] == "snapshot")
    assert [step["name"] for step in snapshot["steps"]] == ["only"]
    assert snapshot["order"] == "the cells in the front end"


def test_unloading_closes_the_channel(kernel: Kernel) -> None:
    executed = kernel.send("%unload_ext nbflow")
    until = time.monotonic() + 10
    kinds = set()
    while "comm_close" not in kinds and time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            kinds.add(kernel.client.get_iopub_msg(timeout=0.1)["msg_type"])
    assert "comm_close" in kinds
    assert reply(kernel, executed)["status"] == "ok"


def shown_under(page: Page, shown: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What cells show after all that the page was told, as a page puts it together."""
    for message in page.heard:
        for cell in message["cells"] if message["kind"] == "outputs" else ():
            shown[cell["cell"]] = [*([] if cell["whole"] else shown.get(cell["cell"], ())), *cell["outputs"]]
    page.heard.clear()
    return shown


def test_outputs_go_under_the_cells_of_a_page_that_takes_them(kernel: Kernel) -> None:
    kernel.notebook.insert("each", "%%step each --foreach row in rows\nprint('row', row)\nrow * 2", before="slow")
    kernel.notebook.edit("slow", "%%step slow --join each\nprint('slow'); 1 / 0")
    page = Page(kernel)
    client = kernel.client.session.session
    assert page.ask("hello", client=client)["ok"]
    started = kernel.send("%flow run", "run")
    page.hear(
        lambda data: any(
            one["output_type"] == "error" for cell in data.get("cells", ()) for one in cell.get("outputs", ())
        )
    )
    drawn = page.outputs(started)
    shown = shown_under(page, {})
    assert [(one["output_type"], one["text"]) for one in shown["load"]] == [("stream", "loaded\n")]
    assert [one["output_type"] for one in shown["slow"]] == ["stream", "error"]
    assert "ZeroDivisionError" in "\n".join(shown["slow"][1]["traceback"])
    texts = [one["data"]["text/plain"] for one in shown["each"]]
    assert sorted(text for text in texts if "row" not in text) == ["2", "4", "6", "each/0:", "each/1:", "each/2:"]
    assert any("each │ [2] row 3" in text for text in texts)
    kinds = [one["msg_type"] for one in drawn]
    assert kinds.count("display_data") == 1  # the table alone, and one error
    assert kinds.count("stream") == 0

    # a page that has come since has everything from now on, reused steps are told as a whole, and nobody else is told
    page.ask("hello", client="another")
    page.send("run", client="another", steps=["load"], params={}, fresh=False)
    told = page.hear(lambda data: data["kind"] == "outputs")
    assert told["client"] == "another"
    assert told["cells"] == [{"cell": "load", "whole": True, "outputs": shown["load"]}]
    page.settled("done")
    page.heard.clear()
    page.send("run", steps=["load"], params={}, fresh=True)  # by a page that takes none
    page.settled("done")
    assert not [one for one in page.heard if one["kind"] == "outputs"]
