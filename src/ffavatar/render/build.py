"""Compile ``native/*.cpp`` into the one shared library of this package.

Run by ``setup.py`` when the package is installed and by hand with ``python -m ffavatar.render.build``; importing the
package never builds. Only the standard library is used, so that an isolated build needs neither torch nor ffavatar.

Compiler: ``$CXX``, else the system's ``c++``, ``g++`` or ``clang++``, else PyPI's ``ziglang`` if it is importable. It
must know GCC's vector extensions, which MSVC does not: on Windows use ``ziglang`` or clang.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
LIBRARY_NAME = "_native" + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

# Value-changing float shortcuts are allowed except those that would break the tests for NaN and infinity.
COMMON_FLAGS = [
    "-std=c++17", "-O3", "-fPIC", "-ffast-math", "-fno-finite-math-only", "-fno-math-errno",
    "-fvisibility=hidden", "-pthread", "-Wall", "-Wno-psabi",
]  # fmt: skip

# A source whose name ends so is compiled for that instruction set; the library chooses at run time.
X86_FLAGS = {
    "": ["-msse4.1"],
    "_avx2": ["-mavx2", "-mfma"],
    "_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}


class BuildError(RuntimeError):
    """No compiler was found, or it refused the sources; the message holds what it said."""


def find_compiler() -> list[str]:
    """The command of a C++ compiler. Raises ``BuildError`` where there is none."""
    if chosen := os.environ.get("CXX"):
        return shlex.split(chosen)
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    if importlib.util.find_spec("ziglang"):
        # zig compiles for the building machine's own CPU unless told otherwise
        return [sys.executable, "-m", "ziglang", "c++", "-mcpu=baseline"]
    raise BuildError("no C++ compiler found (tried $CXX, c++, g++, clang++ and the Python package ziglang)")


def _instruction_set_flags(source: Path) -> list[str]:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return []
    suffix = next((s for s in X86_FLAGS if s and source.stem.endswith(s)), "")
    return X86_FLAGS[suffix]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"the C++ compiler could not be started: {error}") from error
    if done.returncode:
        raise BuildError(f"the C++ compiler failed\n{shlex.join(command)}\n{done.stdout}{done.stderr}".rstrip())


def build(target_folder: Path | str | None = None) -> Path:
    """Compile every ``native/*.cpp`` and put the library into ``target_folder`` (default: this package's folder).

    Returns the library's path. The old library is replaced at the very end and in one step, so a failed build leaves
    it, and processes that have it loaded keep theirs. Raises ``BuildError``.
    """
    compiler = find_compiler()
    target = Path(target_folder or Path(__file__).parent) / LIBRARY_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    sources = sorted(SOURCES.glob("*.cpp"))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".native-build-") as folder:
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        commands = [
            [*compiler, *COMMON_FLAGS, *_instruction_set_flags(source), "-c", str(source), "-o", str(result)]
            for source, result in zip(sources, objects)
        ]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / LIBRARY_NAME
        _run([*compiler, "-shared", "-pthread", *map(str, objects), "-o", str(linked)])
        os.replace(linked, target)
    return target


def main() -> int:
    try:
        print(f"built {build()}")
    except BuildError as error:
        print(f"The native rasteriser was not built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
