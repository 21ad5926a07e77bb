"""What a process needs to stay with the generation of its environment that it was started in.

The launcher at GEN/bin/python has pinned the process before the interpreter ran; `start()` does what only the
interpreter can do. It runs in every start of Python in the environment, so it costs as little as possible: no
import but `os`, `sys` (which are there) and `mmap`. Standard library only, Python 3.9 or newer.

`generation`, `prefix` (GEN, the physical path) and `environment` (ENV) say where this process is. All three
are empty in a process that could not be pinned.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # none of these is imported at run time
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, NoReturn

generation = 0
prefix = ""
environment = ""

_GENERATIONS = "/.siteswap/generations/"
_LEASE = "/.generation/lease"
_PATIENCE_SECONDS = 10
_QUICK_TRIES = 4
_HIGH_DESCRIPTOR = 100  # where the launcher leaves the lease, or the first free number above

_started = False
_worker = ""  # what processes that exchange live objects with this one are started with,
_replaced = ""  # instead of this
_roots: "list[str]" = []  # spellings of ENV to replace in sys.path, when the launcher was skipped


def start() -> None:
    """Pin the process; called by `site`, once. Raises nothing.

    A failure here must not keep Python from starting, or a damaged environment could not even be looked at.
    But the process is then not protected from changes, so it says so, in one line on stderr, in every such
    process.
    """
    global _started, generation, prefix, environment
    if _started:
        return
    _started = True
    try:
        _pin()
    except Exception as error:
        generation, prefix, environment = 0, "", ""
        _warn(error)
        return
    try:
        _present()
        words = getattr(sys, "orig_argv", None) or _command_line()
        if "pip" in " ".join(words[1:6]):
            _make_pip_a_transaction(words)
    except Exception as error:
        _warn(error, "is pinned, but may name or start another generation")


def _warn(error: Exception, state: str = "is not pinned to a generation: a change may reach it") -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"siteswap: this process {state} ({type(error).__name__}: {error})\n")


# --- the pin ------------------------------------------------------------------------------------------------


def _pin() -> None:
    """Take over the launcher's lease; pin the process here if there is none. Raises OSError."""
    global generation, prefix, environment
    found = _split(__file__)
    descriptor = _inherited(found) if found else None
    if not found or descriptor is None:
        descriptor, found = _pin_anew(found)
    environment, number = found
    prefix = environment + _GENERATIONS + number
    generation = int(number)
    _hold(descriptor, prefix)


def _split(path: str) -> "tuple[str, str] | None":
    """ENV and N for a path in generation N; None for one that leads there by `current`, or not at all."""
    environment, mark, rest = path.rpartition(_GENERATIONS)
    number = rest.partition("/")[0]
    return (environment, number) if mark and number.isdigit() else None


def _inherited(found: "tuple[str, str]") -> "int | None":
    """The descriptor that the launcher left, if its lease is that of the generation this file is in."""
    path = _GENERATIONS.join(found)
    descriptor = _HIGH_DESCRIPTOR
    try:
        lease = os.stat(path + _LEASE)
    except OSError:
        return None  # not the generation that the launcher pinned: that one has its lease
    try:
        # The launcher got the first free number from here on; all numbers before it were in use, and still
        # are.
        while not os.path.samestat(os.fstat(descriptor), lease):
            descriptor += 1
    except OSError:
        if os.sysconf("SC_OPEN_MAX") > _HIGH_DESCRIPTOR:
            return None
        for descriptor in range(_HIGH_DESCRIPTOR):
            try:
                if os.path.samestat(os.fstat(descriptor), lease):
                    break
            except OSError:
                pass  # not open
        else:
            return None
    return None if os.path.islink(path) else descriptor


def _pin_anew(found: "tuple[str, str] | None") -> "tuple[int, tuple[str, str]]":
    """Do the launcher's work where it was skipped: an embedding program, or site.addsitedir(ENV/...).

    What was imported from the environment before this line came through `current` unpinned; that is this
    module, and nothing else in the ways in that we know. Raises OSError.
    """
    import time
    from fcntl import LOCK_NB, LOCK_SH, flock

    loaded = __file__
    by_number = found is not None
    found = found or _split(os.path.realpath(loaded))
    if not found:
        raise OSError(f"{loaded} is in no environment")
    environment = found[0]
    deadline = time.monotonic() + _PATIENCE_SECONDS
    attempt = 0
    while True:
        attempt += 1
        path = _GENERATIONS.join(found)
        descriptor = -1
        try:
            descriptor = os.open(path + _LEASE, os.O_RDONLY | os.O_CLOEXEC)
            flock(descriptor, LOCK_SH | LOCK_NB)
            # Only now is it certain: whoever wants to move the generation needs the lock first.
            # And only what is current may be taken by a path that leads through `current` (see launcher.c).
            if (
                not os.path.islink(path)
                and os.path.samestat(os.stat(path + _LEASE), os.fstat(descriptor))
                and (by_number or _current(environment) == found[1])
            ):
                break
        except (FileNotFoundError, NotADirectoryError, BlockingIOError):
            pass  # being collected, or gone: start over
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        if descriptor >= 0:
            os.close(descriptor)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no generation of {environment} could be pinned")
        if attempt >= _QUICK_TRIES:
            time.sleep(0.002)
        found, by_number = (environment, _current(environment)), False
    if not os.path.samefile(sys.prefix, path):
        _roots.append(environment)
        tail = "/" + os.path.realpath(loaded).rpartition(_GENERATIONS)[2].partition("/")[2]
        if loaded.endswith(tail) and loaded[: -len(tail)] not in (environment, ""):
            _roots.append(loaded[: -len(tail)])  # ENV as the caller spells it
    return descriptor, found


def _current(environment: str) -> str:
    return os.readlink(environment + "/.siteswap/current").rpartition("/")[2]


_mapping: "Any" = None


def _hold(descriptor: int, directory: str) -> None:
    """Move the lease from a descriptor to a mapping of one page, which lasts to the end of the process.

    The lock belongs to the open file, and a mapping keeps the file open without a descriptor: it survives
    programs that close all descriptors, follows fork, and ends with exec and exit.

    Not so where file systems are stacked: there a mapping keeps the file below open, and the lock is on the
    one above. The descriptor stays open then; the mapping is for those who look who uses the generation.
    """
    global _mapping
    try:
        import mmap

        options: dict[str, Any] = {"flags": mmap.MAP_SHARED, "prot": mmap.PROT_READ}
        duplicate = -1
        if sys.version_info >= (3, 13):
            options["trackfd"] = False
        else:
            # mmap.mmap() duplicates the descriptor for itself (for resize(), which we never call). dup()
            # always takes the lowest free number; what it gets now, and gives back, is what mmap() will get.
            duplicate = os.dup(descriptor)
            os.close(duplicate)
        _mapping = mmap.mmap(descriptor, 1, **options)
    except (ImportError, OSError, ValueError):
        # No mmap module, or a file system without mappings. The descriptor holds the lock just as well,
        # until somebody closes it; like the mapping it must end with an exec.
        os.set_inheritable(descriptor, False)
        return
    # A cycle through the constants of a code object, which the garbage collector does not look into: nothing
    # ever frees the mapping, not even while the interpreter shuts down. (On 3.13+ without the GIL it does
    # look; there the mapping owns no number, see below, and merely ends a little early.)
    box: list[object] = [_mapping]
    box.append(_hold.__code__.replace(co_consts=(None, box)))
    if duplicate >= 0 and os.path.samestat(os.fstat(duplicate), os.fstat(descriptor)):
        # Still the lease, so no other thread was quicker, and it is mmap's. The object goes on believing that
        # it owns the number, and would close it when it is freed, by then perhaps somebody else's file. It is
        # never freed.
        os.close(duplicate)
    if _stacked(directory):
        os.set_inheritable(descriptor, False)
    else:
        os.close(descriptor)


def _stacked(directory: str) -> bool:
    """Whether what is mapped there belongs to another file system (overlay and its kind).

    Asked of a directory, because files there may show the device of the layer that they are in. Most
    environments lie on a real device, which costs one stat; else the list of mounts is read. Where that
    cannot be, the answer is yes: what is done then is right everywhere, if more easily closed by a program.
    """
    try:
        device = os.stat(directory).st_dev
        if os.major(device):
            return False
        with open("/proc/self/mountinfo", "rb") as stream:
            lines = stream.read().split(b"\n")
    except OSError:
        return True
    name = b"%d:%d" % (os.major(device), os.minor(device))
    for line in lines:
        words, _, rest = line.partition(b" - ")
        if words.split(b" ")[2:3] == [name]:
            return rest.startswith((b"overlay ", b"aufs ", b"fuse"))
    return False


# --- what the process says about itself ---------------------------------------------------------------------


def _present() -> None:
    """Let the process name the environment in what it writes down, its generation where data must match."""
    global _worker, _replaced
    if _roots:
        _enter_generation()
    physical = prefix + "/bin/"
    logical = environment + "/bin/"
    if sys.prefix == prefix:
        # As Python 3.11 and newer have it: `python -m venv` makes the new environment out of this
        # interpreter.
        sys._base_executable = os.readlink(prefix + "/.generation/python")  # type: ignore[attr-defined]
    executable = sys.executable or ""
    if executable.startswith(physical):
        _worker = executable
        if handed_over():
            return  # a whole tree of processes is pinned: every path stays that of the generation
        sys.executable = logical + executable[len(physical) :]
        # Nothing opens these again; __main__.__file__ and sys.path[0] stay physical.
        arguments: Any = getattr(sys, "argv", None)
        script = arguments[0] if arguments else ""
        original: Any = getattr(sys, "orig_argv", None)
        if original and original[0].startswith(physical):
            original[0] = logical + original[0][len(physical) :]
        if script.startswith(physical):
            arguments[0] = logical + script[len(physical) :]
            if original and script in original:
                original[original.index(script)] = arguments[0]
    elif any(executable.startswith(root + "/bin/") for root in _roots):
        _worker = physical + os.path.basename(executable)
    _replaced = sys.executable
    if _worker or _roots:
        sys.meta_path.insert(0, sys.modules[__name__])
    last = type(sys)("_siteswap_last")
    last.find_spec = _find_in_current  # type: ignore[attr-defined]
    sys.meta_path.append(last)
    if _worker:
        for name in _MATCHERS:
            if name in sys.modules:
                _match(sys.modules[name])


def handed_over() -> bool:
    """Whether SITESWAP_GENERATION names this generation, however it spells the way to it."""
    wanted = os.environ.get("SITESWAP_GENERATION", "")
    if not wanted:
        return False
    if wanted == prefix:
        return True
    return os.path.basename(wanted) == str(generation) and os.path.samefile(wanted, prefix)


def _enter_generation() -> None:
    """Lead what `site` has set up so far from `current` to the generation."""
    for name in ("prefix", "exec_prefix"):
        setattr(sys, name, _physical(getattr(sys, name)))
    site = sys.modules.get("site")
    if site is not None and hasattr(site, "PREFIXES"):
        site.PREFIXES[:] = [_physical(path) for path in site.PREFIXES]
    _enter_path()


def _enter_path() -> None:
    for index, path in enumerate(sys.path):
        if type(path) is str and path.startswith(tuple(_roots)):
            sys.path[index] = _physical(path)


def _physical(path: str) -> str:
    """`path` in our generation, if it leads into ENV in any other way and exists in ours."""
    for root in _roots:
        if path == root:
            return prefix
        if path.startswith(root + "/"):
            first, _, rest = path[len(root) + 1 :].partition("/")
            if first == ".siteswap":
                first, _, rest = rest.partition("/")
                if first == "generations":
                    first, _, rest = rest.partition("/")
                moved = f"{prefix}/{rest}" if rest else prefix
            else:
                moved = prefix + path[len(root) :]
            return moved if os.path.exists(moved) else path
    return path


# --- imports that are about to fail -------------------------------------------------------------------------


def _find_in_current(
    name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
) -> "ModuleSpec | None":
    """The last finder: where another generation is current by now, that may have the module."""
    if current() in (generation, 0) or os.environ.get("SITESWAP_ADVANCE") == "0":
        return None
    if name.startswith("_siteswap"):
        return None  # what does this is not there: so nothing more is
    mine = [finder for finder in sys.meta_path if getattr(finder, "find_spec", None) is _find_in_current]
    for finder in sys.meta_path[sys.meta_path.index(mine[0]) + 1 :] if mine else ():
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path, target) if find else None
        if spec is not None:
            return spec  # a finder of the program's own, which comes after us, has it
    import _siteswap_advance

    return _siteswap_advance.find(name, path)


def current() -> int:
    """The number of the generation that is current; 0 when there is no telling."""
    try:
        return int(_current(environment))
    except (OSError, ValueError):
        return 0


def also_pin(number: int) -> bool:
    """Take the lease of another generation too, and keep both to the end; False when it is going away.

    The old one is kept because paths of it are in use: files of modules, programs of workers.
    """
    from fcntl import LOCK_NB, LOCK_SH, flock

    path = f"{environment}{_GENERATIONS}{number}"
    descriptor = os.open(path + _LEASE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
        # After the lock, as in the launcher: whoever wants to move the generation needs the lock first.
        if os.path.islink(path) or not os.path.samestat(os.stat(path + _LEASE), os.fstat(descriptor)):
            raise BlockingIOError
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return False
        raise
    _hold(descriptor, path)
    return True


def move(number: int, path: str) -> None:
    """Be in another generation from now on; its lease is held, and `_siteswap_advance` does the rest."""
    global generation, prefix, _worker
    if _worker.startswith(prefix + "/"):
        worker = path + _worker[len(prefix) :]
        for name in _MATCHERS:
            module: Any = sys.modules.get(name)
            if module is not None and os.fsdecode(getattr(module, "_python_exe", None) or "") == _worker:
                module._python_exe = os.fsencode(worker) if type(module._python_exe) is bytes else worker
        _worker = worker
    generation, prefix = number, path


# --- pip, which would change what is published --------------------------------------------------------------

_ELSEWHERE = ("--target", "-t", "--prefix", "--root", "--python", "--dry-run", "--user")
_ONLY_TOLD = ("--help", "-h", "--version")


def _make_pip_a_transaction(words: "list[str]") -> None:
    """Become `siteswap exec -- python -m pip ...` where this is pip, about to change the environment.

    So for ensurepip, which runs pip. Returns where it is anything else: another program, a command of pip's
    that only reads, pip at work elsewhere, and pip in that very transaction.
    """
    found = _pip_words(words)
    if found is None:
        return
    module, told = found
    if module == "pip":
        absent = type(sys)("_siteswap_pip")
        absent.find_spec = _say_that_there_is_no_pip  # type: ignore[attr-defined]
        sys.meta_path.append(absent)
    if os.environ.get("SITESWAP_EXEC") == environment:
        return
    command = next((word for word in told if not word.startswith("-")), "")
    elsewhere = any(word.split("=")[0] in _ELSEWHERE + _ONLY_TOLD for word in told)
    if elsewhere or (module == "pip" and command not in ("install", "uninstall")):
        return
    if handed_over():
        _refuse(f"generation {generation}, which this process is pinned to, cannot change", "siteswap exec")
    try:
        with open(prefix + "/.generation/siteswap") as stream:
            program = stream.read().splitlines()
    except OSError:
        program = []
    if program and all(map(os.path.exists, program)):
        program.insert(1, "-I")
    else:
        import shutil

        program = [shutil.which("siteswap") or ""]
        if not program[0]:
            _refuse("the siteswap that made this environment is gone", "install siteswap, or put it on PATH")
    line = ["exec", "--env", environment, "--as-pip", "--", "python", "-m", module, *told]
    os.execv(program[0], [*program, *line])


def _say_that_there_is_no_pip(name: str, *_: "Any") -> None:
    """A last finder, asked where `python -m pip` is about to fail: most people expect pip to be there."""
    if name == "pip" and getattr(sys.meta_path[-1], "find_spec", None) is _say_that_there_is_no_pip:
        step = "siteswap install NAME needs none; siteswap install pip puts one here"
        raise SystemExit(f"siteswap: there is no pip in this environment\n  \u2192 {step}")


def _refuse(problem: str, step: str) -> "NoReturn":
    sys.stderr.write(
        f"siteswap: pip would change what other programs are using: {problem}\n  \u2192 {step}\n"
    )
    sys.stderr.flush()
    os._exit(1)


def _pip_words(words: "Sequence[str]") -> "tuple[str, list[str]] | None":
    """The module and what it is told, where a line starts pip or ensurepip; None for anything else."""
    index = 1
    while index < len(words):
        word = words[index]
        index += 1
        if word in ("-W", "-X", "--check-hash-based-pycs"):
            index += 1
        elif word.startswith("-") and not word.startswith("--"):
            flags, module, name = word.partition("m")
            if flags[1:].isalpha() and "c" in flags:
                return None
            if module:
                name = name or (words[index] if index < len(words) else "")
                index += not word.partition("m")[2]
                name = name.replace(".__main__", "")
                return (name, list(words[index:])) if name in ("pip", "ensurepip") else None
        elif not word.startswith("--"):
            directory, _, name = word.rpartition("/")
            ours = directory in (environment + "/bin", prefix + "/bin")
            is_pip = name in ("pip", "pip3") or (name.startswith("pip3.") and name[5:].isdigit())
            return ("pip", list(words[index:])) if ours and is_pip else None
    return None


def _command_line() -> "list[str]":
    """Before Python 3.10."""
    with open("/proc/self/cmdline", "rb") as stream:
        return [os.fsdecode(word) for word in stream.read().split(b"\0")[:-1]]


# --- children that exchange live objects with us ------------------------------------------------------------


def _match_spawn(module: "ModuleType") -> None:
    """Modules that keep the program for workers in a variable of their own, taken from sys.executable."""
    current: Any = getattr(module, "_python_exe", None)
    if current is None or os.fsdecode(current) != _replaced:
        return  # somebody has chosen another
    set_executable: Callable[[str], None] | None = getattr(module, "set_executable", None)
    if set_executable is not None:
        set_executable(_worker)
    else:
        module._python_exe = _worker  # type: ignore[attr-defined]


def _match_loky(module: "ModuleType") -> None:
    """loky looks at sys.executable whenever it starts a worker: give this one module its own view of sys."""

    class Sys:
        def __getattr__(self, name: str) -> "Any":
            value = getattr(sys, name)
            return _worker if name == "executable" and value == _replaced else value

    if getattr(module, "sys", None) is sys:
        module.sys = Sys()  # type: ignore[attr-defined]


_MATCHERS = {
    "multiprocessing.spawn": _match_spawn,  # also what forkserver and the resource tracker ask
    "billiard.spawn": _match_spawn,
    "loky.backend.spawn": _match_spawn,
    "loky.backend.popen_loky_posix": _match_loky,
    "joblib.externals.loky.backend.spawn": _match_spawn,
    "joblib.externals.loky.backend.popen_loky_posix": _match_loky,
}


def _match(module: "ModuleType") -> None:
    """Raises nothing: a module that cannot be led keeps its own choice, and says so."""
    try:
        _MATCHERS[module.__name__](module)
    except Exception as error:
        _warn(error, f"may start workers of {module.__name__} in another generation")


def find_spec(
    name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
) -> "ModuleSpec | None":
    """Makes this module a finder that finds nothing itself: it has `_match` called on a few modules.

    (A module and not an object of a class, because making a class would be a tenth of all costs.)
    The spec and its loader are those of the finder that found the module. The loader gets an attribute that
    removes itself when it is used; then nothing tells the module from any other (reload, pickle, inspect).
    """
    if _roots:
        _enter_path()  # what `site` appended after start()
    if name not in _MATCHERS or not _worker:
        return None
    for finder in sys.meta_path:
        find = None if finder is sys.modules[__name__] else getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path, target) if find else None
        if spec is not None:
            _match_after(spec.loader)
            return spec
    return None


def _match_after(loader: "Any") -> None:
    execute = getattr(loader, "exec_module", None)
    if (
        execute is None
        or isinstance(loader, type)
        or "exec_module" in getattr(loader, "__dict__", "exec_module")
    ):
        return  # not an object of its own, so nothing to hang this on; or it already hangs there

    def exec_module(module: "ModuleType") -> None:
        matching = module.__name__ in _MATCHERS  # an archive's loader is shared by all its modules
        if matching:
            del loader.exec_module
        execute(module)
        if matching:
            _match(module)

    loader.exec_module = exec_module
