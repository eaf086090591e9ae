"""Secrets of a task: `***` in every text that is shown or kept, and values that hold one not stored."""

from __future__ import annotations

import html
import json
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nbflow import plugins
from nbflow.errors import PlanError
from nbflow.jsonable import exact
from nbflow.model import Finding, Record, Step, TaskFailure, TaskResult
from nbflow.store.serialize.pickler import Dumped, Unstorable

HIDDEN = "***"


class Mask:
    """The secrets of one task, taken out of what it shows, streams' pieces included: a secret may come in two."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._words = spellings(secrets)
        self._held: dict[str, str] = {}  # stream -> the end of its text that may be the beginning of a secret

    def __bool__(self) -> bool:
        return bool(self._words)

    def output(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """An nbformat output in; the same without secrets out; a stream's end may come with its next piece."""
        if output.get("output_type") != "stream":
            shown: dict[str, Any] = hide(dict(output), self._words)
            return shown
        text = self._held.pop(output["name"], "") + output["text"]
        whole: str = hide(text, self._words)
        held = _unfinished(whole, self._words)
        if held:
            self._held[output["name"]] = whole[len(whole) - held :]
        return {**output, "text": whole[: len(whole) - held]}

    def rest(self) -> list[dict[str, Any]]:
        """The ends of streams that were held back; none of them has become a secret."""
        held, self._held = self._held, {}
        return [{"output_type": "stream", "name": name, "text": text} for name, text in held.items()]

    def result(self, result: TaskResult) -> TaskResult:
        """A task's result in; the same without secrets in any of its texts out."""
        record = result.record
        return msgspec.structs.replace(
            result,
            failure=None if result.failure is None else self._hidden(result.failure, TaskFailure),
            findings=tuple(self._hidden(finding, Finding) for finding in result.findings),
            observations=self._hidden(result.observations, type(result.observations)),
            record=None if record is None else self._record(record),
        )

    def _record(self, record: Record) -> Record:
        """Keys, ids and segments stay: no text of the user's is in them."""
        return msgspec.structs.replace(
            record,
            artifacts={name: self._hidden(one, type(one)) for name, one in record.artifacts.items()},
            outputs=tuple(hide(output, self._words) for output in record.outputs),
            observations=self._hidden(record.observations, type(record.observations)),
        )

    def _hidden(self, value: Any, kind: Any) -> Any:
        return msgspec.convert(hide(msgspec.to_builtins(value, enc_hook=exact), self._words), kind)


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Secrets in; each as it may be written (plain, in a repr, in JSON, HTML or a URL), longest first, out."""
    found: set[str] = set()
    for secret in filter(None, secrets):
        found |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret)}
        found |= {urllib.parse.quote(secret), urllib.parse.quote_plus(secret)}
    return tuple(sorted(found, key=len, reverse=True))


def hide(value: Any, words: Sequence[str]) -> Any:
    """Text, or lists and dicts of it, and secrets, longest first, in; the same with `***` for each out."""
    if isinstance(value, str):
        for word in words:
            value = value.replace(word, HIDDEN)
        return value
    if isinstance(value, dict):
        return {hide(name, words): hide(part, words) for name, part in value.items()}
    return [hide(part, words) for part in value] if isinstance(value, list | tuple) else value


def _unfinished(text: str, words: Sequence[str]) -> int:
    """How many of a text's last characters may be the beginning of a secret."""
    longest = min(len(text), max(map(len, words), default=1) - 1)
    for length in range(longest, 0, -1):
        end = text[len(text) - length :]
        if any(len(word) > length and word.startswith(end) for word in words):
            return length
    return 0


def withhold(dumped: Sequence[Dumped | Unstorable], secrets: Mapping[str, str]) -> list[Dumped | Unstorable]:
    """Values as they would be stored and secrets by name in; those that hold one as not storable out."""
    found: list[Dumped | Unstorable] = []
    for each in dumped:
        name = _held_by(each, secrets) if isinstance(each, Dumped) else None
        if name is None or not isinstance(each, Dumped):
            found.append(each)
            continue
        for variable in each.names:
            about = each.described[variable]
            shown = about._replace(preview=HIDDEN)
            found.append(Unstorable(variable, about.type, f"it holds the secret {name}", shown))
    return found


def _held_by(dumped: Dumped, secrets: Mapping[str, str]) -> str | None:
    """The name of the secret that stands in a value's bytes, as Python, NumPy and Windows write text."""
    for part in (dumped.stream, *dumped.buffers):
        data = bytes(part)
        for name, secret in secrets.items():
            if secret and any(secret.encode(code) in data for code in ("utf-8", "utf-16-le", "utf-32-le")):
                return name
    return None


def find(name: str) -> str | None:
    """A secret's name in; its value out, None where it is set nowhere."""
    if name in os.environ:
        return os.environ[name]
    for provider in plugins.names("secrets"):
        try:
            return str(plugins.load("secrets", provider)().get(name))
        except KeyError:
            continue
    return None


def refuse_missing(steps: Iterable[Step]) -> None:
    """Steps that are about to run in; PlanError naming every secret of theirs that is set nowhere."""
    wanted: dict[str, Step] = {}
    for step in steps:
        for name in step.options.secret:
            wanted.setdefault(name, step)
    missing = [name for name in wanted if find(name) is None]
    if missing:
        step = wanted[missing[0]]
        many = f"the secrets {', '.join(missing)} are" if len(missing) > 1 else f"the secret {missing[0]!r} is"
        raise PlanError(
            f"{many} set nowhere", step=step.name, cell=step.cell, line=1,
            fix=f"export {missing[0]}=… and start again",
        )  # fmt: skip
