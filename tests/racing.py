"""Who takes part in the races of test_races: a driver that flips, readers that start, inhabitants that stay.

Run as a program this file is the driver: it changes one environment again and
again through the API until its standard input ends, then prints what it did.
It can be told to leave out a guarantee, so that the tests can be seen to fail.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from wheelmaker import wheel

LAZY = 24
"""How many modules of `swaplong` an inhabitant imports, one after the other."""


@dataclass(frozen=True)
class Orders:
    """What the driver does."""

    env: str
    wheels: str
    cycle: tuple[str, ...]
    """Steps, repeated: "install REQUIREMENT", "gc", "rollback" (to the newest that is not current)."""
    keep: int = 0
    """For `gc` and for collecting after commits."""
    grace: float = 0.0
    without: tuple[str, ...] = ()
    """Guarantees to leave out: "proof" (of disuse), "pin" (launcher and runtime)."""
    create: str | None = None
    """Make the environment first, with this interpreter."""
    pause: float = 0.0
    """Seconds between two steps."""


@dataclass
class Deeds:
    """What the driver did."""

    steps: dict[str, int] = field(default_factory=dict)
    collected: int = 0
    recycled: int = 0
    seconds: float = 0.0
    error: str | None = None
    flips: int = 0


class Driver:
    """The driver as a process of its own, from the first cycle's end to the end of the `with` block."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.deeds = Deeds()

    def __enter__(self) -> Driver:
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(self._orders))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._process.communicate()
            raise AssertionError("the driver did not get through its first cycle")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        out, _ = self._process.communicate("\n", timeout=120)
        self.deeds = Deeds(**json.loads(out))
        if error is None:
            assert self.deeds.error is None, self.deeds.error


def drive(orders: Orders) -> None:
    """The driver's own program."""
    from siteswap import assemble, collect, lease, prefix
    from siteswap.environment import Environment
    from siteswap.fs import FileSystem
    from siteswap.gates import Gates
    from siteswap.requirements import Request, parse_line
    from siteswap.resolve import Options

    deeds = Deeds()
    collect.GRACE_SECONDS = orders.grace
    collect.DEFAULT_KEEP = orders.keep
    if "proof" in orders.without:
        _leave_out_proof(lease)
    if "pin" in orders.without:
        _leave_out_pin(prefix)
    recycle = assemble.Assembler._recycle

    def counted(self: Any, *arguments: Any) -> Any:
        result = recycle(self, *arguments)
        deeds.recycled += result is not None
        return result

    assemble.Assembler._recycle = counted  # type: ignore[assignment, method-assign]
    detach = collect.detach

    def counting(*arguments: Any, **options: Any) -> str | None:
        reason = detach(*arguments, **options)
        deeds.collected += reason is None
        return reason

    collect.detach = counting
    if orders.create:
        Environment.create(orders.env, python=orders.create)
    environment = Environment.open(orders.env)
    options = Options(("--no-index", "--find-links", orders.wheels), no_index=True)
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.readline()
        ended.set()

    def step(text: str) -> None:
        verb, _, rest = text.partition(" ")
        if verb == "install":
            request = Request((parse_line(rest, Path.cwd(), FileSystem()),))
            outcome = environment.install(request, options, gates=Gates(enabled=False))
            flipped = outcome.committed
        elif verb == "rollback":
            flipped = environment.rollback(_other(environment)).committed
        else:
            environment.gc(orders.keep)
            flipped = False
        deeds.flips += flipped
        deeds.steps[verb] = deeds.steps.get(verb, 0) + 1

    begun = time.monotonic()
    announced = False
    threading.Thread(target=wait_for_end, daemon=True).start()
    try:
        for count, text in enumerate(itertools.cycle(orders.cycle)):
            if not announced and count == len(orders.cycle):
                print("ready", flush=True)
                announced = True
            if announced and ended.wait(orders.pause):
                break
            step(text)
    except BaseException as error:
        if not announced:
            raise
        deeds.error = f"{type(error).__name__}: {error}"
    deeds.seconds = time.monotonic() - begun
    print(json.dumps(asdict(deeds)), flush=True)


def _other(environment: Any) -> Any:
    """The newest generation that is there and not current: back, and from there forth again."""
    from siteswap.generation import listed, read_current

    current = read_current(environment.fs, environment.layout)
    found = [
        number
        for number, kind in listed(environment.fs, environment.layout).items()
        if kind == "directory" and number != current
    ]
    return max(found)


def _leave_out_proof(lease: Any) -> None:
    """As if a generation were free as soon as it is not current."""

    class Nothing:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    lease.prove_unused = lambda *_: Nothing()
    lease.users = lambda _: []


def _leave_out_pin(prefix: Any) -> None:
    """As if a generation were an ordinary venv: links to the interpreter, nothing at start-up."""
    files = prefix.files

    def without_runtime(*arguments: Any) -> list[Any]:
        return [
            prefix.PrefixFile(item.path, b"\n") if item.path.endswith((".pth", ".start")) else item
            for item in files(*arguments)
        ]

    def link(fs: Any, target: Path, final: Any, interpreter: Any, base: Any) -> None:
        for name in prefix.python_names(interpreter):
            fs.unlink(target / "bin" / name)
            fs.symlink(target / "bin" / name, interpreter.executable)

    prefix.files = without_runtime
    prefix.write_launcher = link


# -- readers ---------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What readers saw: how many of each answer, and what went wrong."""

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    """By version, "mixed" and "failed"."""
    by_form: collections.Counter[str] = field(default_factory=collections.Counter)
    """The same, by the way of starting."""
    crossed: int = 0
    """Starts during which `current` changed: those that prove something."""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        return self.answers["mixed"] + self.answers["failed"]

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {name}" for name, count in sorted(self.answers.items()))
        return f"{self.answers.total()} starts in {self.seconds:.0f} s: {parts}; {self.crossed} across a flip"


def forms(env: Path, directory: Path) -> dict[str, list[str]]:
    """The ways in which a program of the environment starts."""
    file = directory / "program.py"
    file.write_text("import swapapp\nfrom swapapp.report import main\nmain()\n")
    python = str(env / "bin/python")
    slow = "import swapapp, time; time.sleep(0.03); from swapapp.report import main; main()"
    return {
        "-c": [python, "-c", slow],
        "-m": [python, "-m", "swapapp"],
        "file": [python, str(file)],
        "script": [str(env / "bin/swapapp")],
    }


def start_many(
    ways: Mapping[str, Sequence[str]], current: Path, count: int, *, until_bad: bool = False
) -> Seen:
    """Start programs, two at a time, in each of the ways in turn; `current` is the link that flips."""
    seen = Seen()
    guard = threading.Lock()
    begun = time.monotonic()

    def one(item: tuple[str, Sequence[str]]) -> None:
        name, command = item
        if until_bad and seen.bad:
            return
        before = os.readlink(current)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            words, trouble = done.stdout.split(), f"status {done.returncode}: {done.stdout}{done.stderr}"
            answer = "failed" if done.returncode or not words or done.stderr else words[0]
            if answer == "same":
                answer = words[1]
        except OSError as error:
            answer, trouble = "failed", repr(error)
        with guard:
            seen.answers[answer] += 1
            seen.by_form[f"{name} {answer}"] += 1
            seen.crossed += os.readlink(current) != before
            if answer in ("mixed", "failed"):
                seen.wrong.append(f"{name}: {trouble}")

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(one, itertools.islice(itertools.cycle(ways.items()), count)):
            pass
    seen.seconds = time.monotonic() - begun
    return seen


# -- inhabitants -----------------------------------------------------------------------------------


def long_application(directory: Path, version: str) -> Path:
    """`swaplong`: modules to be imported later, and a data file, that all carry the version."""
    files = {"swaplong/__init__.py": f"VERSION = {version!r}\n"}
    files |= {f"swaplong/lazy{index}.py": f"VERSION = {version!r}\n" for index in range(LAZY)}
    return wheel(directory, "swaplong", version, files, data={"data/etc/swaplong.txt": version})


KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "closed": (),
    "isolated": ("-I",),
    "no-environment": ("-E",),
    "site-later": ("-S",),
    "no-site-closed": ("-S",),
    "spawn": (),
    "forkserver": (),
    "spawn-pool": (),
    "forkserver-pool": (),
    "fork-closed": (),
    "orphan": (),
}
"""Kinds of inhabitants, with the options of their interpreter."""

INHABITANT = '''\
"""Import one module after the other for a while; report each version that this process or a worker saw."""
import importlib, json, os, sys, time

kind, lazy, interval = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])


def look(names):
    """The versions of modules and of the data file, slowly."""
    found = []
    for name in names:
        time.sleep(interval)
        found.append(importlib.import_module(name).VERSION)
        if os.path.isdir(sys.prefix + "/.generation"):
            with open(sys.prefix + "/etc/swaplong.txt") as file:
                found.append(file.read())
    return found


def report(value):
    print(json.dumps(value), flush=True)


def ready(children=()):
    version = importlib.import_module("swaplong").VERSION
    report({"pid": os.getpid(), "children": list(children), "version": version})


def work(names, results):
    results.put((os.getpid(), None))
    results.put((os.getpid(), look(names)))


def main():
    names = ["swaplong.lazy%d" % index for index in range(lazy)]
    if kind.endswith("closed") and kind != "fork-closed":
        os.closerange(3, 4096)
    if kind == "no-site-closed":
        home = os.path.dirname(os.path.dirname(sys.executable))
        sys.path.append("%s/lib/python%d.%d/site-packages" % ((home,) + sys.version_info[:2]))
    if kind == "site-later":
        import site
        site.main()
    if kind in ("spawn", "forkserver"):
        import multiprocessing
        context = multiprocessing.get_context(kind)
        results = context.Queue()
        child = context.Process(target=work, args=(names, results))
        child.start()
        ready([results.get()[0]])
        found = look(names) + results.get()[1]
        child.join()
    elif kind.endswith("-pool"):
        import multiprocessing
        context = multiprocessing.get_context(kind[:-5])
        ready()
        # Every task in a new worker: they start long after the parent.
        with context.Pool(1, maxtasksperchild=1) as pool:
            found = sum(pool.map(look, [names[at : at + 6] for at in range(0, lazy, 6)], 1), look(names[:1]))
    elif kind in ("fork-closed", "orphan"):
        child = os.fork()
        if child and kind == "orphan":
            os._exit(0)
        if child:
            ready([child])
            os.waitpid(child, 0)
            found = look(names[-3:])
        else:
            if kind == "orphan":
                ready()
            else:
                os.closerange(3, 4096)
            found = look(names)
            if kind != "orphan":
                report({"seen": sorted(set(found))})
                os._exit(0)
    else:
        ready()
        found = look(names)
    report({"seen": sorted(set(found))})
    sys.stdin.read()


if __name__ == "__main__":
    main()
'''


class Inhabitant:
    """A process that stays for a while."""

    def __init__(self, env: Path, program: Path, kind: str, interval: float) -> None:
        self.kind = kind
        command: list[str | Path] = [
            env / "bin/python",
            *KINDS[kind],
            program,
            kind,
            str(LAZY),
            str(interval),
        ]
        # No second pipe: what `readline` has read ahead is known to `read` only, not to `communicate`.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def wait_until_ready(self) -> Inhabitant:
        """Read its first line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._first: dict[str, Any] = json.loads(line) if line.strip() else {}
        return self

    @property
    def pids(self) -> list[int]:
        """It and its workers, as far as they stay."""
        return [self._first["pid"], *self._first["children"]] if self._first else []

    @property
    def version(self) -> str | None:
        """What it began with."""
        return self._first.get("version")

    def end(self) -> str | None:
        """Wait for its end: what went wrong, or None."""
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        out = self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait(60)
        with self._errors:
            self._errors.seek(0)
            err = self._errors.read()
        seen: set[str] = set()
        reports = 0
        for line in out.splitlines():
            seen |= set(json.loads(line)["seen"])
            reports += 1
        if err or reports != (2 if self.kind == "fork-closed" else 1):
            return f"{self.kind}: began with {self.version}, {err.strip()[-600:]}"
        if seen != {self.version}:
            return f"{self.kind}: began with {self.version}, saw {sorted(seen)}"
        return None


def inhabit(env: Path, program: Path, count: int, interval: float, gap: float) -> Iterator[Inhabitant]:
    """Start inhabitants of every kind, one after another, so that they live in different generations."""
    program.write_text(INHABITANT)
    for kind in itertools.islice(itertools.cycle(KINDS), count):
        yield Inhabitant(env, program, kind, interval)
        time.sleep(gap)


def prepare(
    env: Path, wheels: Path, *requirements: str, uninstall: str | None = None, with_spare: bool = False
) -> None:
    """Bring an environment into a state quickly: through the API, untried."""
    from siteswap import collect, housekeeping
    from siteswap.environment import Environment
    from siteswap.fs import FileSystem
    from siteswap.gates import Gates
    from siteswap.requirements import Request, parse_line
    from siteswap.resolve import Options

    environment = Environment.open(env) if env.exists() else Environment.create(env)
    options = Options(("--no-index", "--find-links", str(wheels)), no_index=True)
    for requirement in requirements:
        request = Request((parse_line(requirement, Path.cwd(), FileSystem()),))
        environment.install(request, options, gates=Gates(enabled=False))
    if uninstall:
        environment.uninstall([uninstall], gates=Gates(enabled=False))
    if with_spare:
        grace, collect.GRACE_SECONDS = collect.GRACE_SECONDS, 0.0
        try:
            housekeeping.sweep(environment._waiting(""), 1, seconds=None, spare=True)
        finally:
            collect.GRACE_SECONDS = grace


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def inside(env: Path) -> dict[str, list[str]]:
    """What is in the state directory, as far as crashes may leave something there."""
    home = env / ".siteswap"
    return {
        "staging": sorted(os.listdir(home / "staging")),
        "generations": sorted(
            item.name for item in (home / "generations").iterdir() if not item.is_symlink()
        ),
        "home": sorted(os.listdir(home)),
        "log": sorted(os.listdir(home / "log")),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    drive(Orders(**{**given, "cycle": tuple(given["cycle"]), "without": tuple(given["without"])}))
