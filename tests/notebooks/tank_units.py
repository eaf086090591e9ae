"""A module beside a notebook, as people have them."""

from dataclasses import dataclass

METRES = {"m": 1.0, "ft": 0.3048}


@dataclass(frozen=True)
class Length:
    value: float
    unit: str

    def to(self, unit: str) -> "Length":
        return Length(self.value * METRES[self.unit] / METRES[unit], unit)


def show(length: Length) -> str:
    return f"{length.value:.2f} {length.unit}"
