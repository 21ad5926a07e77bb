"""The words and options of the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from siteswap.version import __version__

_EXIT = """exit status: 0 done · 1 left as it was: a check or a requirement failed · 2 usage · 3 busy ·
4 the environment is damaged · 5 the system refused · 70 a bug in siteswap · 130 interrupted"""


def build() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="siteswap",
        description="Python packages change all at once: every install is a transaction, "
        "every state can be had back.",
        epilog=_EXIT,
    )
    parser.add_argument("--version", action="version", version=f"siteswap {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    _create(verbs)
    _adopt(verbs)
    _unadopt(verbs)
    _install(verbs)
    _uninstall(verbs)
    _sync(verbs)
    _foreign(verbs)
    _reading(verbs)
    _past(verbs)
    _trying(verbs)
    _healing(verbs)
    _living(verbs)
    _cache(verbs)
    return parser


if TYPE_CHECKING:
    _Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def _verb(
    verbs: _Verbs, name: str, text: str, example: str = "", *, env: bool = True
) -> argparse.ArgumentParser:
    epilog = f"example: {example}" if example else None
    verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog)
    if env:
        verb.add_argument(
            "-e", "--env", metavar="ENV", help="the environment (default: $VIRTUAL_ENV, else .venv)"
        )
    verb.add_argument("-q", "--quiet", action="store_true", help="no progress, only results and errors")
    return verb


def _folder(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("a plain directory instead of an environment, as pip and uv spell it")
    group.add_argument("-t", "--target", metavar="DIR", help="this directory, with programs in DIR/bin")
    group.add_argument(
        "-p", "--python", metavar="PY",
        help="the site-packages of this interpreter; with --target: the interpreter that DIR is for",
    )  # fmt: skip
    group.add_argument("--system", action="store_true", help="the site-packages of python3 on PATH")
    group.add_argument(
        "--break-system-packages", action="store_true",
        help="go on where the interpreter's packages are managed by another program (PEP 668)",
    )  # fmt: skip


def _changing(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    verb.add_argument(
        "--lock-timeout",
        type=float,
        metavar="SECONDS",
        help="wait at most this long for another command (default: for ever)",
    )


def _gates(verb: argparse.ArgumentParser) -> None:
    group = _checks(verb, "checks before the change goes live", "the candidate")
    group.add_argument(
        "--no-startup-code", action="store_true",
        help="refuse new code that would run at every start of Python (.pth, sitecustomize, …)",
    )  # fmt: skip
    group.add_argument("--no-check", action="store_true", help="go live untried (history remembers it)")
    verb.add_argument("--dry-run", action="store_true", help="say what would change, change nothing")


def _checks(verb: argparse.ArgumentParser, title: str, where: str) -> argparse._ArgumentGroup:
    group = verb.add_argument_group(title)
    group.add_argument(
        "--check",
        action="append",
        default=[],
        metavar="CMD",
        help=f"a shell command that must succeed in {where}",
    )
    group.add_argument(
        "--test", action="append", default=[], metavar="DIST", help="run the tests that DIST installs"
    )
    group.add_argument(
        "--allow-broken",
        action="append",
        default=[],
        metavar="NAME",
        help="let what is wrong with NAME pass (but for damaged files and failing tests)",
    )
    group.add_argument("--offline-checks", action="store_true", help="no network for what the checks run")
    group.add_argument(
        "--check-user", metavar="USER",
        help="run the checks as USER (default: you, or the environment's owner where you are root)",
    )  # fmt: skip
    return group


def _resolving(verb: argparse.ArgumentParser) -> None:
    _indexes(verb)
    verb.add_argument(
        "--allow-overlap", action="store_true", help="let two distributions write one file; the later wins"
    )
    verb.add_argument("--compile", action="store_true", help="compile everything that is new to byte-code")


def _indexes(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("indexes and resolution, as uv and pip spell them")
    group.add_argument(
        "-i", "--index-url", "--default-index", metavar="URL", help="the index to use instead of PyPI"
    )
    group.add_argument(
        "--extra-index-url", "--index", action="append", default=[], metavar="URL", help="a further index"
    )
    group.add_argument(
        "-f",
        "--find-links",
        action="append",
        default=[],
        metavar="PATH|URL",
        help="a directory or page of wheels",
    )
    group.add_argument(
        "--no-index", action="store_true", help="use no index, only --find-links and what is installed"
    )
    group.add_argument(
        "--index-strategy", metavar="STRATEGY", help="how several indexes are combined (see uv)"
    )
    group.add_argument("--keyring-provider", metavar="PROVIDER", help="where uv finds passwords for indexes")
    group.add_argument("--trusted-host", "--allow-insecure-host", action="append", default=[], metavar="HOST",
                       help="a host whose certificate the resolver need not check")  # fmt: skip
    group.add_argument("--no-deps", action="store_true", help="without the dependencies")
    group.add_argument("--pre", action="store_true", help="allow pre-releases")
    group.add_argument(
        "--require-hashes", action="store_true", help="refuse what has no hash in the requirements"
    )
    group.add_argument("--no-build", action="store_true", help="wheels only")
    group.add_argument(
        "--no-binary", action="append", default=[], metavar="NAME", help="build this from source"
    )
    group.add_argument("--only-binary", action="append", default=[], metavar="NAME", help="never build this")
    group.add_argument(
        "--no-build-isolation", action="store_true",
        help="build with what the environment has, instead of in one made for each build",
    )  # fmt: skip
    group.add_argument(
        "-C", "--config-setting", "--config-settings", action="append", default=[], metavar="KEY=VALUE",
        dest="config_setting", help="what build backends are told",
    )  # fmt: skip
    group.add_argument(
        "--resolution", choices=("highest", "lowest", "lowest-direct"), help="which versions to prefer"
    )
    group.add_argument("--exclude-newer", metavar="DATE", help="as if it were that day")
    group.add_argument(
        "-c", "--constraint", action="append", default=[], metavar="FILE", help="versions to stay within"
    )
    group.add_argument("--offline", action="store_true", help="the resolver uses what it has cached")


def _create(verbs: _Verbs) -> None:
    verb = _verb(
        verbs,
        "create",
        "make an environment: an empty one, or a copy",
        "siteswap create .venv --python 3.12",
        env=False,
    )
    verb.add_argument("env", nargs="?", default=".venv", metavar="ENV", help="where (default: .venv)")
    verb.add_argument("-p", "--python", metavar="PY", help="path, version or name of the base interpreter")
    verb.add_argument(
        "--system-site-packages", action="store_true", help="let it see the base interpreter's packages"
    )
    verb.add_argument(
        "--copy-of", metavar="OTHER", help="begin with what that environment holds, and its Python"
    )
    verb.add_argument(
        "--generation", metavar="N", help="with its generation or tag N (default: its current one)"
    )
    verb.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def _adopt(verbs: _Verbs) -> None:
    verb = _verb(
        verbs, "adopt", "make an existing virtual environment one that siteswap manages, at the same path",
        "siteswap adopt .venv", env=False,
    )  # fmt: skip
    verb.add_argument("env", nargs="?", default=".venv", metavar="VENV", help="which (default: .venv)")
    verb.add_argument(
        "-p", "--python", metavar="PY",
        help="its base interpreter, if that has gone from where it was: one of the same version",
    )  # fmt: skip
    verb.add_argument("--strict", action="store_true", help="leave it as it is if checks find anything wrong")
    verb.add_argument("--no-check", action="store_true", help="without trying what is in it")
    verb.add_argument("--dry-run", action="store_true", help="say what would be taken in, change nothing")
    verb.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def _unadopt(verbs: _Verbs) -> None:
    verb = _verb(
        verbs, "unadopt", "make an environment a plain virtual environment again, at the same path",
        "siteswap unadopt .venv", env=False,
    )  # fmt: skip
    verb.add_argument("env", nargs="?", default=".venv", metavar="ENV", help="which (default: .venv)")
    verb.add_argument(
        "--drop-tags",
        action="store_true",
        help="even if there are tags, which are given up",
    )
    verb.add_argument("--dry-run", action="store_true", help="say what would be given up, change nothing")
    _changing(verb)


def _install(verbs: _Verbs) -> None:
    verb = _verb(verbs, "install", "install or upgrade distributions", "siteswap install 'flask>=3' requests")
    verb.add_argument("requirements", nargs="*", metavar="REQ", help="requirement, path or URL")
    verb.add_argument(
        "-r",
        "--requirement",
        action="append",
        default=[],
        metavar="FILE",
        help="requirements file or pyproject.toml",
    )
    verb.add_argument(
        "--editable", action="append", default=[], metavar="PATH", help="a source tree to install editable"
    )
    verb.add_argument(
        "--extra", action="append", default=[], metavar="NAME", help="an extra of that pyproject.toml"
    )
    verb.add_argument("--group", action="append", default=[], metavar="NAME", help="a dependency group of it")
    verb.add_argument(
        "-U", "--upgrade", action="store_true", help="newest that fits, of REQ or (without) of everything"
    )
    _folder(verb)
    _resolving(verb)
    _gates(verb)
    _changing(verb)


def _uninstall(verbs: _Verbs) -> None:
    verb = _verb(
        verbs,
        "uninstall",
        "uninstall distributions and what nothing needs any more",
        "siteswap uninstall flask",
    )
    verb.add_argument("names", nargs="+", metavar="NAME")
    _folder(verb)
    _gates(verb)
    _changing(verb)


def _sync(verbs: _Verbs) -> None:
    verb = _verb(verbs, "sync", "make the environment exactly what a file says", "siteswap sync pylock.toml")
    verb.add_argument("file", metavar="FILE", help="pylock.toml, requirements file or pyproject.toml")
    verb.add_argument(
        "--extra", action="append", default=[], metavar="NAME", help="an extra of that pyproject.toml"
    )
    verb.add_argument("--group", action="append", default=[], metavar="NAME", help="a dependency group of it")
    _folder(verb)
    _resolving(verb)
    _gates(verb)
    _changing(verb)


def _reading(verbs: _Verbs) -> None:
    verb = _verb(verbs, "list", "list what is installed")
    _folder(verb)
    verb.add_argument("--generation", metavar="N", help="in generation or tag N (default: the current one)")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb = _verb(verbs, "show", "show what is known of a distribution", "siteswap show flask")
    verb.add_argument("names", nargs="+", metavar="NAME")
    verb.add_argument("--files", action="store_true", help="its files too")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb = _verb(
        verbs, "export", "write a lock file of what is installed, or make a plain copy of it",
        "siteswap export > pylock.toml",
    )  # fmt: skip
    _folder(verb)
    verb.add_argument("--format", choices=("pylock", "requirements"), help="default: pylock")
    verb.add_argument("--generation", metavar="N", help="of generation or tag N (default: the current one)")
    verb.add_argument("-o", "--output", metavar="FILE", help="write here instead of stdout")
    verb.add_argument(
        "--plain", metavar="DIR",
        help="make DIR a plain virtual environment of it instead, which needs no siteswap and may be moved",
    )  # fmt: skip


def _past(verbs: _Verbs) -> None:
    verb = _verb(verbs, "history", "show every generation")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb = _verb(verbs, "diff", "show what changed between generations", "siteswap diff 41 43")
    verb.add_argument("before", nargs="?", metavar="A", help="default: what B was made from")
    verb.add_argument("after", nargs="?", metavar="B", help="default: the current one")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb = _verb(verbs, "rollback", "make an older generation current", "siteswap rollback 41")
    verb.add_argument(
        "generation",
        nargs="?",
        metavar="N",
        help="number or tag (default: what the current one was made from)",
    )
    _changing(verb)
    verb = _verb(verbs, "tag", "name a generation, which keeps it", "siteswap tag 41 before-numpy-2")
    verb.add_argument("generation", nargs="?", metavar="N", help="number or tag")
    verb.add_argument("name", nargs="?", metavar="NAME")
    verb.add_argument("--delete", metavar="NAME", help="take a name away")
    _changing(verb)


def _trying(verbs: _Verbs) -> None:
    verb = _verb(verbs, "check", "try a generation as it is", "siteswap check 41 --test numpy")
    verb.add_argument("generation", nargs="?", metavar="N", help="number or tag (default: the current one)")
    _checks(verb, "checks besides the ones that always run", "that generation")
    _indexes(verb)
    verb.add_argument("--json", action="store_true", help="the verdict as JSON on stdout")
    verb = _verb(verbs, "log", "show past verdicts of checks", "siteswap log 41")
    verb.add_argument(
        "which", nargs="?", metavar="LOG",
        help="show the whole output of this one: a name from the list, or a generation for its last",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="as JSON")


def _foreign(verbs: _Verbs) -> None:
    verb = _verb(
        verbs, "exec", "run any installer on a private copy of the environment, and take in what it did",
        "siteswap exec -- pip install -e .",
    )  # fmt: skip
    verb.add_argument(
        "command", nargs="+", metavar="CMD", help="the installer; one word with spaces is a shell line"
    )
    # For the runtime, which leads pip here: the result goes to stderr, so that stdout is pip's.
    verb.add_argument("--as-pip", action="store_true", help=argparse.SUPPRESS)
    _gates(verb)
    _changing(verb)


def _healing(verbs: _Verbs) -> None:
    verb = _verb(verbs, "doctor", "find out what is damaged, and repair it", "siteswap doctor --repair")
    verb.add_argument(
        "--repair", action="store_true",
        help="repair from the cache, other generations or the index; without it nothing is written",
    )  # fmt: skip
    group = _checks(verb, "checks before a repaired generation goes live", "the repaired generation")
    group.add_argument("--no-check", action="store_true", help="let it go live untried")
    _indexes(verb)
    _changing(verb)


def _living(verbs: _Verbs) -> None:
    verb = _verb(verbs, "run", "run a command in the environment", "siteswap run --generation 41 -- pytest")
    verb.add_argument(
        "--generation", metavar="N", help="pin the whole process tree to that generation (number or tag)"
    )
    verb.add_argument("command", nargs="+", metavar="CMD")
    verb = _verb(verbs, "ps", "show processes by the generation they use")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb = _verb(verbs, "gc", "remove generations that nobody needs", "siteswap gc --keep 3 --dry-run")
    verb.add_argument(
        "--keep", type=int, metavar="N", help="how many to keep besides the current one (default: 10)"
    )
    verb.add_argument("--dry-run", action="store_true", help="say why each stays or goes, remove nothing")
    _changing(verb)


def _cache(verbs: _Verbs) -> None:
    verb = _verb(
        verbs, "cache", "look at or empty the cache of unpacked wheels", "siteswap cache prune", env=False
    )
    verb.add_argument("action", choices=("dir", "size", "prune"))
