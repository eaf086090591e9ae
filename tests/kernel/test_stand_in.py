"""A function stands in for a method and goes again, whoever else has put something there, before it or over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nbflow.kernel.stand_in import StandIn


class Owner:
    def say(self, word: str) -> str:
        return word


def marked(mark: str) -> Callable[[Any], Callable[[str], str]]:
    return lambda method: lambda word: f"{mark}{method(word)}"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("+ours", ["<x"]),
        ("+ours +ours", ["<x", "<x"]),
        ("+ours -ours", ["<x", "x"]),
        ("-ours", ["x"]),
        ("+theirs +ours -ours", [">x", "<>x", ">x"]),
        ("+theirs +ours -ours +ours", [">x", "<>x", ">x", "<>x"]),
        ("+ours +theirs -ours", ["<x", "><x", "><x"]),
        ("+ours -ours +ours -ours", ["<x", "x", "<x", "x"]),
    ],
)
def test_what_is_called(order: str, said: list[str]) -> None:
    owner = Owner()
    ours = StandIn(owner, "say", marked("<"))
    words = []
    for event in order.split():
        if event == "+theirs":
            owner.say = marked(">")(owner.say)  # type: ignore[method-assign]
        else:
            {"+": ours.attach, "-": ours.detach}[event[0]]()
        words.append(owner.say("x"))
    assert words == said
    if order.endswith("-ours") and "theirs" not in order:
        assert "say" not in vars(owner)
