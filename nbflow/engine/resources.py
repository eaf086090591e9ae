"""What fits beside the tasks that run: cores, GPUs, memory of one machine. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from nbflow.model import StepOptions


class Room(msgspec.Struct, frozen=True):
    """A machine's GPUs by their ids, and its memory in bytes; None: the place where tasks run looks after it itself."""

    devices: tuple[str, ...] | None = None
    memory: int | None = None


class Grant(msgspec.Struct, frozen=True):
    """What a running task has: cores, GPUs by id with the share of each that is its own, bytes of memory."""

    cores: float
    devices: Mapping[str, float]
    memory: int = 0


def within(options: StepOptions, room: Room, slots: int) -> StepOptions:
    """Return options whose amounts, where they are limits, are at most what a machine has."""
    if not options.at_most:
        return options
    gpu = options.gpu if room.devices is None else min(options.gpu, len(room.devices))
    cpu = None if options.cpu is None else min(options.cpu, slots)
    memory = None if room.memory is not None and (options.memory or 0) > room.memory else options.memory
    return msgspec.structs.replace(options, gpu=gpu, cpu=cpu, memory=memory)


def grant(options: StepOptions, cores: float, slots: int, room: Room, running: Iterable[Grant]) -> Grant | None:
    """Return what a task may use beside those that run, None while it has to wait."""
    grants = tuple(running)
    if sum(each.cores for each in grants) + cores > slots + 1e-9:
        return None
    memory = options.memory or 0
    if memory and room.memory is not None and memory + sum(each.memory for each in grants) > room.memory:
        return None
    if not options.gpu or room.devices is None:
        return Grant(cores, {}, memory)
    devices = pick(options.gpu, room.devices, grants)
    return None if devices is None else Grant(cores, devices, memory)


def pick(wanted: float, devices: Iterable[str], running: Iterable[Grant]) -> dict[str, float] | None:
    """Return a number of GPUs beside those that running tasks use, None while too few are free.

    Part of one (0.5) is shared with others that want a part; whole ones are nobody else's.
    """
    shares: dict[str, float] = {}
    for each in running:
        for device, share in each.devices.items():
            shares[device] = shares.get(device, 0.0) + share
    if wanted < 1:
        fitting = [device for device in devices if shares.get(device, 0.0) + wanted <= 1 + 1e-9]
        # the fullest first: whole ones stay free for those who want one
        best = max(fitting, key=lambda device: shares.get(device, 0.0), default=None)
        return None if best is None else {best: wanted}
    free = [device for device in devices if not shares.get(device)]
    count = math.ceil(wanted)
    return dict.fromkeys(free[:count], 1.0) if len(free) >= count else None


def never(options: StepOptions, room: Room) -> str:
    """Return why a step can never run on this machine, "" when it can."""
    if options.nodes > 1:
        return f"--nodes {options.nodes} asks for several machines: this is one"
    if room.devices is not None and options.gpu > len(room.devices):
        count = f"{len(room.devices)} GPUs" if room.devices else "no GPU"
        return f"--gpu {options.gpu:g} asks for more than there is: this machine has {count}"
    if room.memory is not None and (options.memory or 0) > room.memory:
        size = (options.memory or 0) / 1e9
        return f"--memory asks for {size:.3g} GB: this machine has {room.memory / 1e9:.3g} GB in all"
    return ""
