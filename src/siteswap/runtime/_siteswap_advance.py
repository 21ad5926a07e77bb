"""Protected import: what a process does about a module that its generation lacks and the current one has.

Loaded by the runtime when an import is about to fail and `current` has moved on, or by a program that asks.
The rule: a process may go on to another generation if everything that it has imported from the environment
is byte for byte the same there. Then it is in every respect a process of that generation; no process ever
holds code of two versions. Standard library only, Python 3.9 or newer.
"""

import importlib.machinery
import os
import sys
import threading

import _siteswap as here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

_guard = threading.RLock()


def newer() -> "int | None":
    """The number of the current generation, if this process is in another one."""
    number = here.current()
    return number if number and number != here.generation else None


def changes(number: "int | None" = None) -> "list[str]":
    """What this process has imported from the environment that differs in a generation (the current one).

    One line each: a distribution with its versions where that is known, else a module. Empty: this process
    may advance.
    """
    wanted = number or newer()
    return _explained(_changed(_prefix(wanted)), _prefix(wanted)) if wanted else []


def advance() -> bool:
    """Go on to the current generation; whether this process is in it now.

    Not where something that was imported differs there, nor in a tree of processes that is pinned to a
    generation (`siteswap run --generation`). What was imported stays; what is imported from now on
    comes from the new generation. The old one stays in use too, until the process ends.
    """
    with _guard:
        number = newer()
        if number is None:
            return True
        if here.handed_over() or _changed(_prefix(number)):
            return False
        return _enter(number)


def call_when_newer(function: "Callable[[int], Any]", seconds: float = 1.0) -> "Callable[[], None]":
    """Call `function` with the number, from a thread, whenever another generation becomes current.

    Looks every so many seconds. Returns a function that ends this.
    """
    stopped = threading.Event()
    known = here.current()

    def watch() -> None:
        last = known
        while not stopped.wait(seconds):
            number = here.current()
            if number and number != last:
                last = number
                function(number)

    threading.Thread(target=watch, name="siteswap", daemon=True).start()
    return stopped.set


# --- imports that would fail --------------------------------------------------------------------------------


def find(name: str, path: "Sequence[str] | None") -> "ModuleSpec | None":
    """The module as the current generation has it, once this process is in that generation.

    None where that does not have it either. Raises ModuleNotFoundError, which says why, where this
    process must keep its own generation.
    """
    with _guard:
        for _ in range(3):  # generations may come and go meanwhile
            number = newer()
            if number is None:
                # Another thread was quicker: what it entered may have the module.
                return importlib.machinery.PathFinder.find_spec(name, path)
            prefix = _prefix(number)
            spec = _spec(name, path, prefix)
            if spec is None:
                return None
            differs = _changed(prefix)
            if differs:
                raise ModuleNotFoundError(
                    f"No module named {name!r} in generation {here.generation}, which this process keeps. "
                    f"Generation {number} has it, but there these differ from what is imported here: "
                    f"{', '.join(_explained(differs, prefix))}. Start the program again to use it.",
                    name=name,
                )
            if _enter(number):
                return spec
    return None


def _spec(name: str, path: "Sequence[str] | None", prefix: str) -> "ModuleSpec | None":
    places = [
        prefix + place[len(here.prefix) :]
        for place in (sys.path if path is None else path)
        if type(place) is str and (place + "/").startswith(here.prefix + "/")
    ]
    return importlib.machinery.PathFinder.find_spec(name, places)


# --- what differs -------------------------------------------------------------------------------------------


def _prefix(number: int) -> str:
    return f"{here.environment}/.siteswap/generations/{number}"


def _changed(prefix: str) -> "list[str]":
    """Names of modules of this process whose file is not the same in the generation at `prefix`."""
    start, found = here.prefix + "/", []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if type(file) is not str or not file.startswith(start) or name.startswith("_siteswap"):
            continue
        if not _same(file, f"{prefix}/{file[len(start) :]}"):
            found.append(name)
    return found


def _same(one: str, other: str) -> bool:
    try:
        first, second = os.stat(one), os.stat(other)
        if os.path.samestat(first, second):
            return True  # one file with two names: what did not change is linked
        if first.st_size != second.st_size:
            return False
        with open(one, "rb") as left, open(other, "rb") as right:
            return left.read() == right.read()
    except OSError:
        return False


def _explained(names: "Sequence[str]", prefix: str) -> "list[str]":
    """Top-level names, with versions where a distribution of that name has some."""
    before, after = _versions(here.prefix), _versions(prefix)
    lines = []
    for name in sorted({name.partition(".")[0] for name in names}):
        key = name.lower().replace("_", "-")
        if key in before and before[key] != after.get(key):
            lines.append(f"{name} ({before[key]} -> {after.get(key, 'gone')})")
        else:
            lines.append(name)
    return lines


def _versions(prefix: str) -> "dict[str, str]":
    """Version by name of the distributions whose directories lie in site-packages."""
    found = {}
    for place in {os.path.dirname(here.__file__), *sys.path}:
        if type(place) is str and place.startswith(here.prefix + "/"):
            try:
                names = os.listdir(prefix + place[len(here.prefix) :])
            except OSError:
                continue
            for name in names:
                stem, _, kind = name.rpartition(".")
                if kind == "dist-info" and "-" in stem:
                    title, _, version = stem.partition("-")
                    found[title.lower().replace("_", "-")] = version
    return found


# --- going on -----------------------------------------------------------------------------------------------


def _enter(number: int) -> bool:
    """Make this a process of that generation. The lease first: then nobody can take it away."""
    old, new = here.prefix, _prefix(number)
    try:
        if not here.also_pin(number):
            return False
    except OSError:
        return False

    def moved(place: "Any") -> "Any":
        inside = type(place) is str and (place == old or place.startswith(old + "/"))
        return new + place[len(old) :] if inside else place

    here.move(number, new)
    for name in ("prefix", "exec_prefix"):
        setattr(sys, name, moved(getattr(sys, name)))
    site = sys.modules.get("site")
    if site is not None and hasattr(site, "PREFIXES"):
        site.PREFIXES[:] = [moved(place) for place in site.PREFIXES]
    # In place: namespace packages notice by their parents' lists, and others share theirs with their spec.
    sys.path[:] = [moved(place) for place in sys.path]
    for module in list(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if type(places) is list:
            places[:] = [moved(place) for place in places]
    importlib.invalidate_caches()
    return True
