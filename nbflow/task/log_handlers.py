"""Handlers of loggers as plain descriptions, from which every process can make them again."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from nbflow.store.serialize.inspection import attribute

Described = tuple[str, str, str | None, int, tuple[str, str | None, str] | None, str | None]
"""A handler: its kind, what it writes to, encoding, level, format, and its own name."""

STYLES = {logging.PercentStyle: "%", logging.StrFormatStyle: "{", logging.StringTemplateStyle: "$"}
"""How a format writes its fields: the class -> the sign by which a Formatter is told."""


def described(logger: logging.Logger) -> tuple[Described, ...]:
    """Return how a logger's handlers are made, without those that no other process can make."""
    return tuple(each for each in map(_described, logger.handlers) if each is not None)


def strange(logger: logging.Logger) -> tuple[logging.Handler, ...]:
    """Return the handlers of a logger that no other process can make: the notebook's own, or those with filters."""
    return tuple(each for each in logger.handlers if _described(each) is None)


def put(logger: logging.Logger, handlers: tuple[Described, ...]) -> None:
    """Give a logger handlers like these: those that are there and nobody else has, or new ones."""
    elsewhere = {id(each) for other in _loggers() if other is not logger for each in other.handlers}
    free = [each for each in _alive() if id(each) not in elsewhere]
    there = {how: each for each in free if (how := _described(each)) is not None}
    logger.handlers[:] = [*strange(logger), *(there.get(each) or _made(each) for each in handlers)]


def _described(handler: logging.Handler) -> Described | None:
    kind = type(handler)
    if handler.filters or kind.__module__ != "logging":
        return None
    form = handler.formatter
    if form is not None and (type(form) is not logging.Formatter or type(form._style) not in STYLES):  # noqa: SLF001
        return None
    written = None if form is None else (form._style._fmt, form.datefmt, STYLES[type(form._style)])  # noqa: SLF001
    rest = (handler.level, written, handler.name)
    if kind is logging.NullHandler:
        return ("null", "", None, *rest)
    if isinstance(handler, logging.FileHandler) and kind is logging.FileHandler:
        return ("file", handler.baseFilename, handler.encoding, *rest)
    if isinstance(handler, logging.StreamHandler) and kind is logging.StreamHandler:
        name = str(attribute(handler.stream, "name") or "").strip("<>")
        return ("stream", name, None, *rest) if name in ("stdout", "stderr") else None
    return None


def _made(how: Described) -> logging.Handler:
    kind, target, encoding, level, written, name = how
    handler: logging.Handler = logging.NullHandler()
    if kind == "file":
        handler = logging.FileHandler(target, mode="a", encoding=encoding, delay=True)
    elif kind == "stream":
        handler = logging.StreamHandler(getattr(sys, target))
    handler.setLevel(level)
    handler.name = name
    if written is not None:
        form, date, style = written
        handler.setFormatter(logging.Formatter(form, date, style))  # type: ignore[arg-type]
    return handler


def _loggers() -> list[logging.Logger]:
    named = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(each for each in named if isinstance(each, logging.Logger))]


def _alive() -> Iterator[Any]:
    references = [*logging._handlerList]  # type: ignore[attr-defined]  # noqa: SLF001
    yield from (each for each in (reference() for reference in references) if each is not None)
