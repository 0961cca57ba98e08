"""The compiled native readout in the user's cache: built once per machine, checked before it is loaded.

A build is a library and a JSON file with its sha256 and its compiler. Their names contain a digest of the
source, the flags and the processor, so a folder that several machines share holds a build for each of them.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCE = Path(__file__).with_name("native_readout.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
NO_COMPILER = "no C++ compiler is found"
GET_COMPILER = "install g++ or clang, name one by the environment variable CXX"
_PARTIAL = ".build-"
_ABANDONED = 24 * 3600  # seconds after which a partial build is one of a killed process
_UNUSED = 30 * 24 * 3600  # seconds after which a build of another source or processor is removed
_NOTED = 24 * 3600  # seconds for which the time of the last use may be behind
_READABLE = 3600  # seconds for which an older library stays, as another process may be about to load it
_FEATURES = ("model name", "flags", "Features", "CPU implementer", "CPU part")  # in /proc/cpuinfo


@dataclass(frozen=True)
class Build:
    """A loaded build."""

    scan: Callable[..., None]  # the function of native_readout.cpp
    path: Path | None  # in the cache; None: compiled for this process only
    compiler: str  # command and version
    sha256: str  # of the library


class NotReadyError(Exception):
    """The cache has no build that may be loaded. The message is a reason, to follow a colon."""


def compiler() -> list[str] | None:
    """The compiler command, including options in CXX; None if there is no compiler."""
    whole = os.environ.get("CXX", "")
    try:
        named = [whole] if shutil.which(whole) else shlex.split(whole)
    except ValueError:  # an unclosed quote
        return None
    return next(
        (x for x in ([named] if named else [["c++"], ["g++"], ["clang++"]]) if shutil.which(x[0])), None
    )


def cache_folder() -> Path | None:
    """The folder of builds: EMAVOS_CACHE, or `emavos` in the user's cache. None if EMAVOS_CACHE is empty."""
    if (named := os.environ.get("EMAVOS_CACHE")) is not None:
        return Path(named) if os.path.isabs(named) else None
    if os.path.isabs(shared := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(shared, "emavos")
    home = os.path.expanduser("~")
    if not os.path.isabs(home):  # a user without a home
        return None
    return Path(home, *(("Library", "Caches") if sys.platform == "darwin" else (".cache",)), "emavos")


def prepared() -> Build:
    """The build of this machine in the cache, loaded.

    Raises NotReadyError if there is none, if it is of another compiler than CXX names, if it is damaged, or
    if others may write to it.
    """
    folder = cache_folder()
    if folder is None:
        raise NotReadyError("there is no cache folder: EMAVOS_CACHE is empty or not an absolute path")
    try:
        if not folder.exists():
            raise NotReadyError("it is not prepared")
        if (reason := _unsafe(folder)) is not None:
            raise NotReadyError(reason)
        name = _name()
        try:
            return _loaded(folder, name)
        except FileNotFoundError:  # perhaps another process has replaced the build just now
            return _loaded(folder, name)
    except FileNotFoundError:
        raise NotReadyError("it is not prepared for this processor and this version of emavos") from None
    except (OSError, ValueError, KeyError, TypeError) as error:  # such as a folder mounted noexec
        raise NotReadyError(f"the build in {folder} cannot be loaded: {error}") from error


def _loaded(folder: Path, name: str) -> Build:
    """The build of this name in a folder. Raises NotReadyError and the errors of a damaged build."""
    described = folder / f"{name}.json"
    facts = json.loads(described.read_text(encoding="utf-8"))
    sha256 = facts["sha256"]
    if not isinstance(sha256, str) or len(sha256) != 64 or not sha256.isalnum():
        raise ValueError("its facts are damaged")
    path = folder / f"{name}-{sha256[:16]}.so"
    for one in (path, described):
        if (reason := _unsafe(one)) is not None:
            raise NotReadyError(reason)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise NotReadyError(f"{path} is damaged")
    if os.environ.get("CXX") and facts["command"] != _found_command():
        raise NotReadyError("it is prepared with another compiler than CXX names")
    build = Build(_open(path), path, str(facts["compiler"]), sha256)
    _note_use(described)
    return build


def build() -> Build:
    """Compile the library into the cache, and load it. The build appears complete or not at all.

    Raises RuntimeError if the library does not compile or load, and if the cache cannot be used.
    """
    folder = cache_folder()
    if folder is None:
        raise RuntimeError("EMAVOS_CACHE is empty or not an absolute path; name a folder of your own by it")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (reason := _unsafe(folder)) is not None:
            raise RuntimeError(f"{reason}; name a folder of your own by EMAVOS_CACHE")
        name = _name()
        _sweep(folder, name)
        with TemporaryDirectory(prefix=_PARTIAL, dir=folder) as partial:
            library, scan, made_by = _compile(Path(partial), "EMAVOS_CACHE")
            content = library.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            facts = {"sha256": sha256, "compiler": made_by, "command": _command()}
            library.chmod(0o600)
            described = Path(partial, "facts.json")
            described.write_text(json.dumps(facts), encoding="utf-8")
            described.chmod(0o600)
            path = folder / f"{name}-{sha256[:16]}.so"
            os.replace(library, path)
            os.replace(described, folder / f"{name}.json")
        _sweep_unused(folder, name)
    except OSError as error:
        raise RuntimeError(f"the native readout cannot be kept in {folder}: {error}") from error
    return Build(scan, path, made_by, sha256)  # loaded already: the file may be another's by now


def build_here() -> Build:
    """Compile the library for this process only, and load it. Raises RuntimeError as `build` does."""
    with TemporaryDirectory() as folder:
        library, scan, made_by = _compile(Path(folder), "TMPDIR")
        sha256 = hashlib.sha256(library.read_bytes()).hexdigest()
        return Build(scan, None, made_by, sha256)  # stays loaded after the file is deleted


def version() -> str:
    """The compiler's command and the first line of its version."""
    command = _command()
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    return f"{shlex.join(command)}: {shown.partition(chr(10))[0]}"


def _compile(folder: Path, variable: str) -> tuple[Path, Callable[..., None], str]:
    """The library, compiled in a folder; its function, loaded; and its compiler.

    variable: the environment variable that names another folder.
    """
    library = folder / "readout.so"
    for threads in (["-fopenmp"], []):  # some compilers lack OpenMP; then one thread is used
        command = [*_command(), *_FLAGS, *threads, str(SOURCE), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
    else:
        raise RuntimeError(f"the native readout does not compile: {' '.join(command)}\n{done.stderr}")
    try:
        return library, _open(library), version()
    except OSError as error:  # for example a folder mounted noexec
        raise RuntimeError(
            f"the native readout is compiled but not loaded: {error}; name another folder by {variable}"
        ) from error


def _open(library: Path) -> Callable[..., None]:
    scan = ctypes.CDLL(str(library)).scan
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    scan.argtypes = [*[pointer] * 5, *[size] * 5, ctypes.c_float, size, size, pointer, pointer]
    scan.restype = None
    function: Callable[..., None] = scan
    return function


def _found_command() -> list[str] | None:
    """The compiler with its path and options; None if there is none."""
    command = compiler()
    return None if command is None else [str(shutil.which(command[0])), *command[1:]]


def _command() -> list[str]:
    if (command := _found_command()) is None:
        raise RuntimeError(f"{NO_COMPILER}; {GET_COMPILER}, or use another backend")
    return command


def _name() -> str:
    """The name of a build: a digest of everything the build depends on, except its compiler."""
    parts = [SOURCE.read_bytes(), repr(_FLAGS).encode(), _processor().encode()]
    return f"readout-{hashlib.sha256(b'/'.join(parts)).hexdigest()[:16]}"


def _processor() -> str:
    """The system, and the instructions of the processor, which `-march=native` compiles for."""
    system = f"{sys.platform} {platform.machine()} {platform.libc_ver()[0]}"
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return f"{system} {platform.processor()}"
    return "\n".join([system, *(line for line in first.splitlines() if line.startswith(_FEATURES))])


def _unsafe(path: Path) -> str | None:
    """The reason why somebody else may have written this file or folder; None if nobody may."""
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return f"{path} is a link"
    if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {path}"
    return None


def _sweep(folder: Path, name: str) -> None:
    """Remove partial builds of killed processes, and older libraries of this name, if no process needs them.

    The newest library of this name stays until it is replaced.
    """
    for partial in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            if time.time() - partial.lstat().st_mtime > _ABANDONED:
                shutil.rmtree(partial)
    with suppress(OSError, ValueError, KeyError, TypeError):
        present = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["sha256"][:16]
        for old in folder.glob(f"{name}-*.so"):
            if old.stem != f"{name}-{present}" and time.time() - old.lstat().st_mtime > _READABLE:
                old.unlink()


def _note_use(described: Path) -> None:
    """Set the time of a build's facts to now, so that `_sweep_unused` keeps a build that is used."""
    with suppress(OSError):  # such as a folder that cannot be written to
        if time.time() - described.lstat().st_mtime > _NOTED:
            os.utime(described, follow_symlinks=False)


def _sweep_unused(folder: Path, name: str) -> None:
    """Remove the builds of other names that no process has loaded in a month: those of older versions.

    A folder may be shared by machines with other processors, whose builds have other names too. A library
    that a process has loaded stays loaded when the file is removed.
    """
    for pattern in ("readout-*.json", "readout-*.so"):  # facts first: nobody finds them without a library
        for old in folder.glob(pattern):
            with suppress(OSError):
                unused = time.time() - old.lstat().st_mtime > _UNUSED
                used = old.suffix == ".so" and (folder / f"{old.stem[: len(name)]}.json").exists()
                if unused and not used and not old.stem.startswith(name) and _unsafe(old) is None:
                    old.unlink()
