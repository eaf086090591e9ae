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
from nbflow.plugins import SecretProvider
from nbflow.store.serialize.pickler import Dumped, Unstorable

HIDDEN = "***"


class Mask:
    """The secrets of one task, taken out of what it shows, streams' pieces included: a secret may come in two."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._words = spellings(secrets)
        self._ends: dict[str, str] = {}  # stream -> the end of its text that may be the beginning of a secret

    def __bool__(self) -> bool:
        return bool(self._words)

    def output(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """Return an nbformat output without secrets; a stream's end may come with its next piece."""
        if output.get("output_type") != "stream":
            masked: dict[str, Any] = hide(dict(output), self._words)
            return masked
        text = self._ends.pop(output["name"], "") + output["text"]
        whole: str = hide(text, self._words)
        length = _unfinished(whole, self._words)
        if length:
            self._ends[output["name"]] = whole[len(whole) - length :]
        return {**output, "text": whole[: len(whole) - length]}

    def rest(self) -> list[dict[str, Any]]:
        """Return the ends of streams that were held back: none of them has become a secret."""
        ends, self._ends = self._ends, {}
        return [{"output_type": "stream", "name": name, "text": text} for name, text in ends.items()]

    def result(self, result: TaskResult) -> TaskResult:
        """Return a task's result without secrets in any of its texts."""
        record = result.record
        return msgspec.structs.replace(
            result,
            failure=None if result.failure is None else self._hidden(result.failure, TaskFailure),
            findings=tuple(self._hidden(finding, Finding) for finding in result.findings),
            observations=self._hidden(result.observations, type(result.observations)),
            record=None if record is None else self._record(record),
        )

    def _record(self, record: Record) -> Record:
        """Return a record without secrets. Keys, ids and segments stay: no text of the user's is in them."""
        return msgspec.structs.replace(
            record,
            artifacts={name: self._hidden(one, type(one)) for name, one in record.artifacts.items()},
            outputs=tuple(hide(output, self._words) for output in record.outputs),
            observations=self._hidden(record.observations, type(record.observations)),
            findings=tuple(self._hidden(finding, Finding) for finding in record.findings),
        )

    def _hidden(self, value: Any, kind: Any) -> Any:
        return msgspec.convert(hide(msgspec.to_builtins(value, enc_hook=exact), self._words), kind)


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return each secret as it may be written (plain, in a repr, in JSON, HTML or a URL), longest first."""
    words: set[str] = set()
    for secret in filter(None, secrets):
        words |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret)}
        words |= {urllib.parse.quote(secret), urllib.parse.quote_plus(secret)}
    return tuple(sorted(words, key=len, reverse=True))


def hide(value: Any, words: Sequence[str]) -> Any:
    """Return text, or lists and dicts of it, with `***` for each of the words, which come longest first."""
    if isinstance(value, str):
        for word in words:
            value = value.replace(word, HIDDEN)
        return value
    if isinstance(value, dict):
        return {hide(name, words): hide(part, words) for name, part in value.items()}
    return [hide(part, words) for part in value] if isinstance(value, list | tuple) else value


def _unfinished(text: str, words: Sequence[str]) -> int:
    """Return how many of a text's last characters may be the beginning of a secret."""
    longest = min(len(text), max(map(len, words), default=1) - 1)
    for length in range(longest, 0, -1):
        end = text[len(text) - length :]
        if any(len(word) > length and word.startswith(end) for word in words):
            return length
    return 0


def withhold(dumped: Sequence[Dumped | Unstorable], secrets: Mapping[str, str]) -> list[Dumped | Unstorable]:
    """Return values as they would be stored, those that hold a secret as not storable; `secrets` are by name."""
    values: list[Dumped | Unstorable] = []
    for each in dumped:
        name = _held_by(each, secrets) if isinstance(each, Dumped) else None
        if name is None or not isinstance(each, Dumped):
            values.append(each)
            continue
        for variable in each.names:
            about = each.described[variable]
            description = about._replace(preview=HIDDEN)
            values.append(Unstorable(variable, about.type, f"it holds the secret {name}", description))
    return values


def _held_by(dumped: Dumped, secrets: Mapping[str, str]) -> str | None:
    """Return the name of the secret that stands in a value's bytes, as Python, NumPy and Windows write text."""
    for part in (dumped.stream, *dumped.buffers):
        data = bytes(part)
        for name, secret in secrets.items():
            if secret and any(secret.encode(code) in data for code in ("utf-8", "utf-16-le", "utf-32-le")):
                return name
    return None


def find(name: str) -> str | None:
    """Return a secret's value, None where it is set nowhere; raise PlanError where a provider cannot be asked."""
    if name in os.environ:
        return os.environ[name]
    for source in plugins.names("secrets"):
        try:
            provider: SecretProvider = plugins.load("secrets", source)()
            value: Any = provider.get(name)  # others' code: what it gives may be anything
        except KeyError:
            continue
        except Exception as error:  # a package's own code: a server that does not answer, a key that has expired
            problem = f"the provider {source!r} failed on the secret {name!r}: {type(error).__name__}: {error}"
            raise PlanError(problem, fix=f"export {name}=… goes before every provider") from None
        if not isinstance(value, str):  # `dict.get` gives None, whose text would be taken for the secret
            problem = f"the provider {source!r} gave no text for the secret {name!r}: {type(value).__name__}"
            raise PlanError(problem, fix="a provider returns text, and raises KeyError for a secret that it lacks")
        return value
    return None


def refuse_missing(steps: Iterable[Step]) -> None:
    """Raise PlanError, naming every secret of these steps that is set nowhere."""
    users: dict[str, Step] = {}
    for step in steps:
        for name in step.options.secret:
            users.setdefault(name, step)
    missing = []
    for name, step in users.items():
        try:
            missing += [name] if find(name) is None else []
        except PlanError as error:
            raise PlanError(error.message, step=step.name, cell=step.cell, line=1, fix=error.fix) from None
    if missing:
        step = users[missing[0]]
        many = f"the secrets {', '.join(missing)} are" if len(missing) > 1 else f"the secret {missing[0]!r} is"
        raise PlanError(
            f"{many} set nowhere", step=step.name, cell=step.cell, line=1,
            fix=f"export {missing[0]}=… and start again",
        )  # fmt: skip
