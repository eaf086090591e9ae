"""A task's output events → the outputs that its record holds: streams joined, updates and clears applied, capped."""

from __future__ import annotations

from typing import Any

import msgspec

from nbflow.model import TaskResult

LIMIT = 1_000_000
"""Characters of output kept in a record; the logs hold everything."""

END = 4_000
"""Characters of the end of what was printed that are kept beyond that."""

NOTICE = (
    "\n[output beyond {limit:,} characters is left out here, but for its last lines; the task's log has all of it]\n"
)


class Outputs:
    """nbformat outputs as a saved notebook would hold them, fed one event's output at a time."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.truncated = False
        self._limit = limit
        self._clear()
        self._clear_next = False

    def _clear(self) -> None:
        self._items: list[dict[str, Any]] = []
        self._displays: dict[str, list[dict[str, Any]]] = {}
        self._size = 0
        self._end = ""
        self._cut_at = 0
        self.truncated = False

    def add(self, output: dict[str, Any]) -> None:
        """Add the next piece: a stream's text, a display, an update of one, a clear, a result, an error."""
        kind = output["output_type"]
        if kind == "update_display_data":
            self._update(output)
            return
        if kind == "clear_output":
            self._clear_next = bool(output.get("wait"))
            if not self._clear_next:
                self._clear()
            return
        if self._clear_next:
            self._clear_next = False
            self._clear()
        if kind == "stream":
            self._add_text(output["name"], output["text"])
        elif kind == "error" or self._fits(output):
            self._add_item(output)

    def _add_text(self, name: str, text: str) -> None:
        if self._size >= self._limit:
            if not self.truncated:
                self._cut()
            self._end = (self._end + text)[-END:]
            return
        last = self._items[-1] if self._items else {}
        if last.get("output_type") != "stream" or last["name"] != name:
            last = {"output_type": "stream", "name": name, "text": []}
            self._items.append(last)
        room = self._limit - self._size
        last["text"].append(text[:room])
        self._size += len(text)
        if len(text) > room:
            self._cut()
            self._end = text[room:][-END:]

    def _cut(self) -> None:
        self.truncated = True
        self._items.append({"output_type": "stream", "name": "stderr", "text": [NOTICE.format(limit=self._limit)]})
        self._cut_at = len(self._items)

    def _fits(self, output: dict[str, Any]) -> bool:
        size = len(msgspec.json.encode(output))
        if self._size + size > self._limit:
            if not self.truncated:
                self._cut()
            return False
        self._size += size
        return True

    def _add_item(self, output: dict[str, Any]) -> None:
        identity = (output.get("transient") or {}).get("display_id")
        item = {name: value for name, value in output.items() if name != "transient"}
        self._items.append(item)
        if identity:
            self._displays.setdefault(identity, []).append(item)

    def _update(self, output: dict[str, Any]) -> None:
        identity = (output.get("transient") or {}).get("display_id", "")
        for item in self._displays.get(identity, ()):
            item.update(data=output["data"], metadata=output["metadata"])

    def items(self) -> tuple[dict[str, Any], ...]:
        """Return the outputs so far, the last lines behind the notice where something is left out."""
        outputs = [
            {**item, "text": "".join(item["text"])} if item["output_type"] == "stream" else dict(item)
            for item in self._items
        ]
        if self._end:
            end = self._end if len(self._end) < END else self._end.partition("\n")[2] or self._end
            outputs.insert(self._cut_at, {"output_type": "stream", "name": "stdout", "text": end})
        return tuple(outputs)


def finish(result: TaskResult, outputs: Outputs) -> TaskResult:
    """Return a result with the outputs of its task, which its record has too."""
    items = outputs.items()
    record = result.record
    if record is not None:
        record = msgspec.structs.replace(record, outputs=items, truncated=outputs.truncated)
    return msgspec.structs.replace(result, record=record, outputs=items, truncated=outputs.truncated)
