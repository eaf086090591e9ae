"""The text of a statement of SQL → the names of the notebook that it may mean: frames by their names, and fields."""

import re

ASKS = re.compile(r"\s*(?:--[^\n]*\n\s*)*(?:select|with|from|describe|summarize|create|insert|pivot)\b", re.IGNORECASE)
"""How a statement begins."""

_LITERAL = re.compile(r"'(?:[^']|'')*'|--[^\n]*")
_TABLE = r"\"?[A-Za-z_]\w*\"?"
_TABLES = re.compile(
    rf"\b(?:from|join|describe|summarize|pivot)\s+((?:{_TABLE}(?:\s+(?:as\s+)?[a-z]\w*)?\s*,\s*)*{_TABLE})",
    re.IGNORECASE,
)
_FIELD = re.compile(r"(?<!:):([A-Za-z_]\w*)|\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_TARGET = re.compile(r"\s*([A-Za-z_]\w*)\s*<<")


def tables_of(text: str) -> tuple[str, ...]:
    """Return the tables that a statement may take, and the names in its `:name` and `{{name}}`."""
    bare = _LITERAL.sub(" ", text)
    lists = (part.split(",") for part in _TABLES.findall(bare))
    tables = (entry.split()[0].strip('"') for each in lists for entry in each if entry.split())
    return tuple(dict.fromkeys((*tables, *(one or other for one, other in _FIELD.findall(text)))))


def target_of(line: str) -> tuple[str, ...]:
    """Return the name that `%sql NAME << SELECT …` binds."""
    return tuple(_TARGET.findall(line)[:1])
