"""The shell script that makes an environment, for this machine and for one that has neither nbflow nor Python yet.

It reads the files that the environment is made from as a tar from its standard input. uv makes it where there is one,
else Python's own venv and pip. It stands under its name once it is whole.
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from itertools import takewhile

COLOURS = re.compile(r"\x1b\[[0-9;]*m")

NO_PYTHON, NO_VENV, NO_UV, NO_CONDA = 91, 92, 93, 94
"""Exit statuses of the script: what it would have needed."""

CODE_BEHIND = (
    "import sys, sysconfig, pathlib; "
    "pathlib.Path(sysconfig.get_path('purelib'), '_nbflow_behind.pth').write_text("
    "''.join(f'import site; site.addsitedir({folder!r})\\n' for folder in sys.argv[1:]))"
)

SCRIPT = """\
cache={cache}
mkdir -p "$cache" && made=$(mktemp -d "$cache/.made-XXXXXX") || exit 1
whole=
trap '[ -n "$whole" ] || rm -rf "$made"' EXIT
mkdir "$made/files" && cd "$made/files" && tar -xf - || exit 1
uv=
for each in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
  if command -v "$each" >/dev/null 2>&1; then uv=$each; break; fi
done
{make}
{behind}ln -sn "$(basename "$made")/env" "$cache/{name}" 2>/dev/null && whole=1
[ -x "$cache/{name}/bin/python" ]
"""

UV_ENVIRONMENT = '"$uv" venv -q --python {python} "$made/env" || exit {NO_PYTHON}'

PIP = """\
if [ -n "$uv" ]; then
  {uv_environment}
else
  python=
  for each in {python} python{minor} python3 python; do
    if "$each" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{minor}')" >/dev/null 2>&1; then
      python=$each; break
    fi
  done
  [ -n "$python" ] || exit {NO_PYTHON}
  "$python" -m venv --without-pip "$made/env" || exit {NO_VENV}
fi
"""

UV = """\
[ -n "$uv" ] || exit {NO_UV}
{uv_environment}
UV_PROJECT_ENVIRONMENT="$made/env" "$uv" sync -q --frozen --no-dev --no-install-workspace || exit 1
"""

CONDA = """\
command -v micromamba >/dev/null 2>&1 || exit {NO_CONDA}
micromamba create -q -y -p "$made/env" -f {file} >&2 || exit 1
"$made/env/bin/python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{minor}')" || exit {NO_PYTHON}
"""

INSTALL = """\
there="$made/env/bin/python"
if [ -n "$uv" ]; then
  "$uv" pip install -q --python "$there" {arguments} || exit 1
elif "${{python:=$there}}" -m pip --python "$there" --version >/dev/null 2>&1; then
  "$python" -m pip --python "$there" install -q --disable-pip-version-check {arguments} || exit 1
else
  "$there" -m ensurepip >/dev/null || exit {NO_VENV}
  "$there" -m pip install -q --disable-pip-version-check {arguments} || exit 1
fi
"""
"""A pip that is there already installs for the new environment: to give that a pip of its own takes seconds."""

MAKE: Mapping[str, str] = {"pip": PIP, "uv": UV, "conda": CONDA}


def script(
    *, cache: str, name: str, tool: str, python: str, minor: str, arguments: Sequence[str] = (), file: str = "",
    behind: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return the script that makes `{cache}/{name}`; `cache` as the shell reads it.

    `python` is an interpreter or a minor version, `arguments` go to pip, `file` is what conda reads. What stands in the
    folders `behind` is there too, where the environment does not have it.
    """
    words = {"python": shlex.quote(python), "minor": minor, "file": shlex.quote(file), **STATUSES}
    words["uv_environment"] = UV_ENVIRONMENT.format(**words)
    make = MAKE[tool].format(**words)
    if arguments:
        make += INSTALL.format(arguments=shlex.join(arguments), **STATUSES)
    more = f'"$made/env/bin/python" -c {shlex.quote(CODE_BEHIND)} {shlex.join(behind)} || exit 1\n' if behind else ""
    return SCRIPT.format(cache=cache, name=name, make=make, behind=more)


STATUSES = {"NO_PYTHON": NO_PYTHON, "NO_VENV": NO_VENV, "NO_UV": NO_UV, "NO_CONDA": NO_CONDA}


def packed(files: Mapping[str, bytes]) -> bytes:
    """Return the tar that the script reads; the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def last_line(said: str) -> str:
    """Return the line that says what went wrong, with its cause: hints may stand below it, and steps above."""
    lines = [line.rstrip() for line in COLOURS.sub("", said).splitlines() if line.strip()]
    at = next((at for at, line in enumerate(lines) if line.lower().startswith("error")), len(lines) - 1)
    causes = takewhile(lambda line: line.startswith(" "), lines[at + 1 :])
    return " ".join(line.strip() for line in (*lines[at : at + 1], *causes))
