"""The Python that runs tasks on the box: the one that the URL names, or an environment that is built there once.

What is built holds nbflow exactly as it is installed here, released or from a working tree: it is sent as a wheel. The
folder's name tells Python's minor, nbflow's version and its content, so another one is built beside it.
"""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import version

from nbflow.errors import ExecutorError
from nbflow.executors.ssh import messages
from nbflow.executors.ssh.connection import FAILED, Channel, Connection
from nbflow.executors.ssh.own_source import source_wheel

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"

CODE = f"""\
import sys
sys.path[:1] = [path for path in sys.path[:1] if path]
print("{messages.GREETING.decode()}%d.%d" % sys.version_info[:2], flush=True)
from nbflow.executors.ssh.desk import main
main()
"""

CACHE = 'cache="${NBFLOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nbflow}/box/environments"'

NOT_BUILT, NO_PYTHON, NO_VENV = 90, 91, 92
"""Exit statuses of the scripts below."""

NAMED = """\
p={python}
case "$p" in "~/"*) p="$HOME/${{p#??}}";; esac
command -v "$p" >/dev/null 2>&1 || exit {NO_PYTHON}
exec "$p" -c {code}
"""

BUILT = """\
{CACHE}
[ -x "$cache/{name}/bin/python" ] || exit {NOT_BUILT}
exec "$cache/{name}/bin/python" -c {code}
"""

BUILD = """\
{CACHE}
mkdir -p "$cache" && made=$(mktemp -d "$cache/.tmp-XXXXXX") || exit 1
trap 'rm -rf "$made"' EXIT
cat > "$made/{wheel}" || exit 1
uv=
for each in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
  if command -v "$each" >/dev/null 2>&1; then uv=$each; break; fi
done
if [ -n "$uv" ]; then
  "$uv" venv -q --python {MINOR} "$made/env" || exit {NO_PYTHON}
  "$uv" pip install -q --python "$made/env/bin/python" "$made/{wheel}{extras}" || exit 1
else
  python=
  for each in python{MINOR} python3 python; do
    if "$each" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{MINOR}')" >/dev/null 2>&1; then
      python=$each; break
    fi
  done
  [ -n "$python" ] || exit {NO_PYTHON}
  "$python" -m venv "$made/env" || exit {NO_VENV}
  "$made/env/bin/python" -m pip install -q --disable-pip-version-check "$made/{wheel}{extras}" || exit 1
fi
[ -e "$cache/{name}" ] || mv "$made/env" "$cache/{name}"
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
    script = BUILD.format(
        CACHE=CACHE, MINOR=MINOR, NO_PYTHON=NO_PYTHON, NO_VENV=NO_VENV, wheel=wheel.file, extras=extras,
        name=wheel.environment,
    )  # fmt: skip
    code, said = connection.run(script, wheel.data, BUILD_LONGEST)
    if code:
        raise _no_greeting(connection, code, said)


def _no_greeting(connection: Connection, code: int, said: str) -> ExecutorError:
    """Return what is wrong where no Python has greeted."""
    place, python = connection.address.place, connection.address.python
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [f"exit status {code}"]
    last = next((line for line in lines if line.lower().startswith("error")), lines[-1])  # hints may stand below it
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
