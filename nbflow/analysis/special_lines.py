"""IPython's special syntax in a cell → Python, from the top down, with as many lines.

IPython reads the whole cell again after each magic that it replaces. Here each reading goes on from the statement that
was replaced, by IPython's own transformers, so that a cell takes as long as it is.
"""

from collections.abc import Mapping, Sequence
from tokenize import DEDENT, INDENT, TokenInfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.inputtransformer2 import TokenTransformBase

_LIMIT = 500  # IPython's own
_FIRST_LOOK = 4  # lines; each look in which nothing special is found is twice as far


def replaced(
    lines: Sequence[str], transformers: Sequence[type["TokenTransformBase"]]
) -> tuple[list[str], Mapping[int, int]]:
    """Return the Python of a cell's lines, and where lines were joined: line → last line, both from 0.

    A SyntaxError is raised where IPython gives up, too.
    """
    rest = _Rest(lines, transformers)
    for _ in range(_LIMIT):
        if not rest.replace_next():
            return rest.lines, rest.ends
    raise SyntaxError("too many magics in one cell")


class _Rest:
    """The lines of a cell of which those above `at` are Python."""

    def __init__(self, lines: Sequence[str], transformers: Sequence[type["TokenTransformBase"]]) -> None:
        self.lines = list(lines)
        self.ends: dict[int, int] = {}
        self.at = 0
        self.blocks: list[str] = []  # the indents of the blocks that are open there
        self.transformers = list(transformers)

    def replace_next(self) -> bool:
        """Replace the next special syntax; return whether there was one."""
        size = _FIRST_LOOK
        while True:
            stop = self._end_of_line(self.at + size)
            head = [f"{indent}x\n" for indent in ("", *self.blocks)]  # what opens the blocks for who reads from here
            statements = _statements([*head, *self.lines[self.at : stop]])[len(head) :]
            above = self.at - len(head)  # lines that the reader has not been given
            last = stop == len(self.lines)
            for statement in statements if last else statements[:-1]:
                self.at = above + _line_of(statement)
                if self._replace(statement, above):
                    return True
                self._enter(statement)
            if last:
                return False
            if statements:  # the last may go on below
                self.at = above + _line_of(statements[-1])
            size *= 2

    def _end_of_line(self, at: int) -> int:
        """Return where lines can be cut for a reader: some that Python takes for whitespace end in no line feed."""
        while at < len(self.lines) and not self.lines[at - 1].endswith("\n"):
            at += 1
        return min(at, len(self.lines))

    def _enter(self, statement: Sequence[TokenInfo]) -> None:
        for token in statement:
            if token.type == INDENT:
                self.blocks.append(token.string)
            elif token.type == DEDENT:
                self.blocks.pop()
            else:
                break

    def _replace(self, statement: list[TokenInfo], above: int) -> bool:
        """Replace what is special in the statement that stands at `at`; return whether something was.

        Its tokens count from the line below `above`. A transformer that refuses what it found first never comes to what
        it would find below.
        """
        finders = [each for each in self.transformers if each.find([statement]) is not None]
        if not finders:
            return False
        moved = _moved(statement, above)
        candidates = [found for each in finders if (found := each.find([moved])) is not None]
        for candidate in sorted(candidates, key=lambda each: each.sortby()):
            try:
                self._put(candidate.transform(self.lines))
            except SyntaxError:
                continue
            return True
        refusing = set(map(type, candidates))
        self.transformers = [each for each in self.transformers if each not in refusing]
        return False

    def _put(self, lines: list[str]) -> None:
        """Put IPython's lines in place, with empty ones below a line that it made of several."""
        lost = len(self.lines) - len(lines)
        if lost > 0:
            places = range(self.at, len(lines))
            at = next((place for place in places if self.lines[place] != lines[place]), len(lines) - 1)
            lines[at + 1 : at + 1] = ["\n"] * lost
            self.ends[at] = at + lost
        self.lines = lines


def _statements(lines: list[str]) -> list[list[TokenInfo]]:
    """Return the tokens of each statement; where the lines end within one, those before its end."""
    from IPython.core.inputtransformer2 import make_tokens_by_line

    statements: list[list[TokenInfo]] = make_tokens_by_line(lines)
    return statements


def _moved(statement: Sequence[TokenInfo], lines: int) -> list[TokenInfo]:
    return [
        token._replace(start=(token.start[0] + lines, token.start[1]), end=(token.end[0] + lines, token.end[1]))
        for token in statement
    ]


def _line_of(statement: Sequence[TokenInfo]) -> int:
    """Return the place of a statement's first line among the lines, from 0."""
    return statement[0].start[0] - 1
