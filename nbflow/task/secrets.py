"""Secrets of a task: `***` in every text that is shown or kept, and values that hold one not stored."""

from __future__ import annotations

import base64
import html
import json
import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
            record=None if record is None else self.record(record),
        )

    def record(self, record: Record) -> Record:
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


ENCODED = 8
"""Characters from which on a piece of base64 or hexadecimal digits is taken for a secret's, and no other text's."""


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return each secret as it may be written, longest first.

    Plain, in a repr of text or bytes, in JSON with letters beyond ASCII as they are or escaped, in HTML with quotes
    as they are or escaped, in HTML that shows a repr or JSON, in a URL's path or query, in base64 wherever it begins
    in the text that was encoded, and in hexadecimal digits.
    """
    words: set[str] = set()
    for secret in filter(None, secrets):
        data = secret.encode("utf-8", "surrogateescape")
        shown = {secret, repr(secret)[1:-1], repr(data)[2:-1]}
        shown |= {json.dumps(secret, ensure_ascii=escaped)[1:-1] for escaped in (True, False)}
        words |= shown | {html.escape(text, quote=quote) for text in shown for quote in (True, False)}
        words |= {html.escape(text).replace("&#x27;", "&#39;") for text in shown}
        words |= {urllib.parse.quote(data), urllib.parse.quote(data, safe=""), urllib.parse.quote_plus(data)}
        words |= {word for word in (*_in_base64(data), data.hex(), data.hex().upper()) if len(word) >= ENCODED}
    return tuple(sorted(words, key=len, reverse=True))


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield the digits that stand for nothing but these bytes, wherever they begin among others."""
    for before in range(3):
        digits = base64.b64encode(bytes(before) + data).rstrip(b"=").decode()
        own = digits[-(-before * 4 // 3) : (before + len(data)) * 8 // 6]
        yield own
        yield own.replace("+", "-").replace("/", "_")


CUT = 12
"""Characters of a secret's beginning that are told from other text, where a library has cut the rest off."""

ELLIPSIS = ("...", "…")


def hide(value: Any, words: Sequence[str]) -> Any:
    """Return text, or lists and dicts of it, with `***` for each of the words, which come longest first.

    So are their beginnings where a table has cut them short.
    """
    if isinstance(value, str):
        for word in words:
            value = value.replace(word, HIDDEN)
        return _without_beginnings(value, words) if any(mark in value for mark in ELLIPSIS) else value
    if isinstance(value, dict):
        return {hide(name, words): hide(part, words) for name, part in value.items()}
    return [hide(part, words) for part in value] if isinstance(value, list | tuple) else value


def _without_beginnings(text: str, words: Sequence[str]) -> str:
    """Return a text without the beginnings of words that stand before an ellipsis."""
    for word in words:
        at = text.find(word[:CUT]) if len(word) > CUT else -1
        while at >= 0:
            length = _alike(word, text[at : at + len(word)])
            if text.startswith(ELLIPSIS, at + length):
                text = f"{text[:at]}{HIDDEN}{text[at + length :]}"
                length = len(HIDDEN)
            at = text.find(word[:CUT], at + length)
    return text


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _unfinished(text: str, words: Sequence[str]) -> int:
    """Return how many of a text's last characters may be the beginning of a secret."""
    longest = 0
    for word in words:
        end = text[1 - len(word) :] if len(word) > 1 else ""
        at = end.find(word[0])
        while at >= 0 and not word.startswith(end[at:]):
            at = end.find(word[0], at + 1)
        longest = max(longest, len(end) - at if at >= 0 else 0)
    return longest


def withhold(
    dumped: Sequence[Dumped | Unstorable], secrets: Mapping[str, str], *, declared: bool
) -> list[Dumped | Unstorable]:
    """Return values as they would be stored, those that hold a secret as not storable; `secrets` are by name.

    What has no stored form cannot be searched: where the step has `declared` one, nothing is shown of it but its type.
    """
    values: list[Dumped | Unstorable] = []
    words = {name: spellings([secret]) for name, secret in secrets.items()}
    for each in dumped:
        if not isinstance(each, Dumped):
            description = each.described._replace(preview=HIDDEN) if declared else each.described
            values.append(msgspec.structs.replace(each, described=description))
            continue
        name = _held_by(each, words)
        if name is None:
            values.append(each)
            continue
        for variable in each.names:
            about = each.described[variable]
            description = about._replace(preview=HIDDEN)
            values.append(Unstorable(variable, about.type, f"it holds the secret {name}", description))
    return values


def _held_by(dumped: Dumped, secrets: Mapping[str, Sequence[str]]) -> str | None:
    """Return the name of the secret that stands in a value's bytes, as Python, NumPy and Windows write text.

    `secrets` holds the spellings of each.
    """
    patterns = {
        name: [word.encode(code, "surrogatepass") for word in words for code in ("utf-8", "utf-16-le", "utf-32-le")]
        for name, words in secrets.items()
    }
    for part in (dumped.stream, *dumped.buffers):
        data = bytes(part)
        for name, words in patterns.items():
            if any(word in data for word in words):
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
