"""What of a distribution can be imported by name, by its RECORD. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from siteswap.manifest import Interpreter

_ACCIDENTS = frozenset(
    {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmarks", "setup", "conftest"}
)
"""What distributions put at the top by accident; nobody imports it from there."""


def importable(paths: Iterable[str], interpreter: Interpreter) -> list[str]:
    """Modules to import so that a distribution of these files counts as tried, sorted.

    Packages and modules at the top of site-packages; where the top is a namespace
    package (a directory without `__init__.py`), the packages that begin below it, or
    its modules if there is nothing else. Names that begin with an underscore count
    only where there are no others. Directories that hold no code of this interpreter's
    (stubs, data) do not count.
    """
    regular, loose = _found(paths, interpreter)
    found = {name for name in regular if _counts(name)} or {name for name in loose if _counts(name)}
    public = {name for name in found if not any(part.startswith("_") for part in name.split("."))}
    return sorted(public or found)


def single(paths: Iterable[str], interpreter: Interpreter) -> set[str]:
    """Modules of these files that stand by themselves in a namespace package, in no package of their own."""
    return _found(paths, interpreter)[1]


def brings(paths: Iterable[str], interpreter: Interpreter, module: str) -> bool:
    """Whether a distribution of these files brings a module, or the package that it would be in."""
    regular, loose = _found(paths, interpreter)
    return any(module == name or module.startswith(f"{name}.") for name in regular | loose)


def _found(paths: Iterable[str], interpreter: Interpreter) -> tuple[set[str], set[str]]:
    """Packages and modules at the top, or first below a namespace; and single modules in a namespace."""
    tops = {interpreter.schemes["purelib"], interpreter.schemes["platlib"]}
    code = [relative for path in paths for top in tops if (relative := _below(path, top)) is not None]
    packages = {head for path in code if (head := _package(path)) is not None}
    regular: set[str] = set()
    loose: set[str] = set()
    for path in code:
        parts = path.split("/")
        directories = parts[:-1]
        first = next((n for n in range(1, len(parts)) if "/".join(directories[:n]) in packages), None)
        if first is not None:
            regular.add(".".join(directories[:first]))
        else:
            module = _module(parts[-1], interpreter.cache_tag)
            if module is not None:
                (loose if directories else regular).add(".".join([*directories, module]))
    return regular, loose


def _below(path: str, top: str) -> str | None:
    """The path below site-packages, for code."""
    if not path.endswith((".py", ".so")) or not path.startswith(f"{top}/"):
        return None
    return path[len(top) + 1 :]


def _package(path: str) -> str | None:
    head, _, name = path.rpartition("/")
    return head if head and (name == "__init__.py" or name.startswith("__init__.")) else None


def _module(name: str, cache_tag: str) -> str | None:
    """The module of a file, or None where this interpreter takes it for none."""
    if name.endswith(".py"):
        return name[:-3]
    stem, _, suffix = name.partition(".")
    tagged = suffix.startswith(f"{cache_tag}-") or suffix in ("so", "abi3.so")
    return stem if tagged and not (suffix == "so" and stem.startswith("lib")) else None


def _counts(name: str) -> bool:
    parts = name.split(".")
    return parts[0] not in _ACCIDENTS and all(part.isidentifier() for part in parts)
