"""The Python that runs tasks on the box: the one that the URL names, or an environment that is built there once.

What is built holds nbflow exactly as it is installed here, released or from a working tree: it is sent as a wheel. The
folder's name tells Python's minor, nbflow's version and its content, so another one is built beside it.
"""

from __future__ import annotations

import shlex
from importlib.metadata import version

from nbflow.engine.environments import MINOR
from nbflow.errors import ExecutorError
from nbflow.executors.environment_script import NO_PYTHON, NO_VENV, last_line, packed, script
from nbflow.executors.ssh import messages
from nbflow.executors.ssh.connection import FAILED, Channel, Connection
from nbflow.executors.ssh.own_source import source_wheel

CODE = f"""\
import sys
sys.path[:1] = [path for path in sys.path[:1] if path]
print("{messages.GREETING.decode()}%d.%d" % sys.version_info[:2], flush=True)
from nbflow.executors.ssh.desk import main
main()
"""

CACHE = '"${NBFLOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nbflow}/environments"'

NOT_BUILT = 90
"""Exit status of the script below where there is no environment yet."""

NAMED = """\
p={python}
case "$p" in "~/"*) p="$HOME/${{p#??}}";; esac
command -v "$p" >/dev/null 2>&1 || exit {NO_PYTHON}
exec "$p" -c {code}
"""

BUILT = """\
cache={CACHE}
[ -x "$cache/{name}/bin/python" ] || exit {NOT_BUILT}
exec "$cache/{name}/bin/python" -c {code}
"""

BUILD_LONGEST = 1800.0


# ---------------------------------------------------------------- on the box


def desk(connection: Connection) -> Channel:
    """Return a channel to a desk that has greeted; ExecutorError says what is wrong with the box's Python."""
    channel = connection.channel(_script(connection))
    greeting = channel.greeting()
    if greeting is None:
        code, said = channel.said()
        if code == NOT_BUILT and not connection.address.python:
            _build(connection)
            channel = connection.channel(_script(connection))
            greeting = channel.greeting()
        if greeting is None:
            raise _no_greeting(connection, code, said)
    if greeting != MINOR:
        channel.close()
        raise ExecutorError(
            f"{connection.address.place}: {_named(connection)} is Python {greeting}, this notebook has {MINOR}: "
            "compiled code and pickled functions do not travel between them",
            fix=f"name a Python {MINOR} with ?python=PATH, or leave that out: nbflow then builds an environment there",
        )
    return channel


def _script(connection: Connection) -> str:
    code = shlex.quote(CODE)
    if connection.address.python:
        return NAMED.format(python=shlex.quote(connection.address.python), code=code, NO_PYTHON=NO_PYTHON)
    return BUILT.format(CACHE=CACHE, name=source_wheel().environment, code=code, NOT_BUILT=NOT_BUILT)


def _named(connection: Connection) -> str:
    return connection.address.python or "its environment"


def _build(connection: Connection) -> None:
    """Build the environment; takes a minute, once."""
    wheel = source_wheel()
    extras = f"[{','.join(wheel.extras)}]" if wheel.extras else ""
    text = script(
        cache=CACHE, name=wheel.environment, tool="pip", python=MINOR, minor=MINOR,
        arguments=(f"./{wheel.file}{extras}",),
    )  # fmt: skip
    code, said = connection.run(text, packed({wheel.file: wheel.data}), BUILD_LONGEST)
    if code:
        raise _no_greeting(connection, code, said)


def _no_greeting(connection: Connection, code: int, said: str) -> ExecutorError:
    """Return what is wrong where no Python has greeted."""
    place, python = connection.address.place, connection.address.python
    last = last_line(said) or f"exit status {code}"
    if code == FAILED or "No space left" in said or "quota exceeded" in said:
        return connection.trouble(said)
    if code == NO_PYTHON and python:
        return ExecutorError(f"{place} has no {python}", fix="correct the path in ?python=PATH")
    if code == NO_PYTHON:
        return ExecutorError(
            f"{place} has no Python {MINOR}, and no uv that could fetch it",
            fix=f"install uv or Python {MINOR} there, or name an interpreter with ?python=PATH",
        )
    if code == NO_VENV:
        return ExecutorError(
            f"{place}: its Python cannot make environments: {last}", fix="install uv or python3-venv there"
        )
    return ExecutorError(
        f"{place}: {python or 'the environment for tasks'} cannot be used: {last}",
        fix="name an interpreter that has nbflow with ?python=PATH",
    )


def trouble(connection: Connection, channel: Channel) -> ExecutorError:
    """Return why a Python that has greeted has not gone on."""
    code, said = channel.said()
    if "No module named 'nbflow" in said or "cannot import name" in said:
        return another_nbflow(connection)
    return _no_greeting(connection, code, said)


def another_nbflow(connection: Connection) -> ExecutorError:
    """Return what is wrong where a Python there has no nbflow, or not the one that is here."""
    mine, named = version("nbflow"), _named(connection)
    return ExecutorError(
        f"{connection.address.place}: {named} has no nbflow, or another one than {mine} as it is installed here",
        fix=f"`{named} -m pip install nbflow=={mine}` there (or the same working tree), or leave ?python out: "
        "nbflow then builds an environment",
    )
