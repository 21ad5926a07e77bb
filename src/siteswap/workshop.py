"""A short-lived environment with what a plain directory holds: where its change is made and tried.

Its files are second names of those in the place (copies where that cannot be); what is new is
copied from it into the place at the end, so that nothing of the place is shared with the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siteswap import carry, create, flip, plan, prefix, scripts
from siteswap.assemble import Assembler, Member
from siteswap.fs import FileSystem
from siteswap.generation import Drift
from siteswap.holding import Held, Holding
from siteswap.layout import Layout, Number
from siteswap.manifest import Interpreter, Manifest


def make(fs: FileSystem, root: Path, holding: Holding, python: Interpreter, command: str) -> carry.Base:
    """The environment at `root`, on the file system of the place; its generation 1 is what the place holds.

    Neither atomic nor durable: whoever made `root` removes it. Raises SiteswapError (system) where the file
    system cannot hold an environment.
    """
    layout = Layout(root)
    create.lay_out(fs, layout, layout)
    fs.publish(layout.root)
    view = layout.staging / "view"
    reserved = {path.rstrip("/") for path in prefix.reserved(python)}
    strays = []
    for path in holding.strays:
        inner = holding.place.inner(path, python)
        if inner is not None and inner not in reserved and holding.kinds[path] in ("file", "link"):
            strays.append((path, inner))
    _make_view(fs, layout, view, holding, python, strays)
    manifest = Manifest(
        number=Number(1),
        created=flip.now(),
        command=command,
        base=None,
        interpreter=python,
        requirements=tuple(item.text for item in holding.requirements()),
        distributions=holding.distributions,
        system_site_packages=False,
        shared_mode=fs.access.shared,
        checked="skipped",
        strays=tuple(sorted(inner for _, inner in strays)),
    )
    members = [Member(item, copies=view) for item in holding.distributions]
    assembler = Assembler(fs, layout, None, manifest, allow_overlap=True, strays=view)
    first = assembler.assemble(members, holding.lock().text, lambda _: None)
    _bring_byte_code(fs, holding, python, first.layout.path)
    fs.remove_tree(view)
    create.finish(fs, layout, first, "create")
    drift = Drift(damaged=holding.damaged, strays=manifest.strays, carried=manifest.strays)
    return carry.Base(first, drift, python, holding.distributions, tuple(holding.requirements()))


def _make_view(
    fs: FileSystem,
    layout: Layout,
    view: Path,
    holding: Holding,
    python: Interpreter,
    strays: Sequence[tuple[str, str]],
) -> None:
    """What the place holds, laid out as in an environment, RECORDs and programs too."""
    pairs = list(strays)
    made: list[tuple[str, bytes, bool]] = []
    for item in holding.held:
        links, own = _laid_out(fs, layout, holding, item, python)
        pairs += links
        made += own
    taken = {path for path, _, _ in made}
    once = {here: there for there, here in pairs if here not in taken}
    fs.make_directory(view)
    fs.make_directories(view, plan.directories_of([*once, *taken]))
    files = [(there, here) for here, there in once.items() if holding.kinds[there] == "file"]
    fs.link_files(holding.place.anchor, view, files, copy=False, tick=lambda _: None)
    owned = {there for there, _ in strays}
    for here, there in once.items():
        if holding.kinds[there] == "link":
            source = holding.place.anchor / there
            fs.copy_tree(source if there in owned else fs.resolve(source), view / here)
    for path, content, executable in made:
        fs.write(view / path, content, executable=executable)


def _laid_out(
    fs: FileSystem, layout: Layout, holding: Holding, item: Held, python: Interpreter
) -> tuple[list[tuple[str, str]], list[tuple[str, bytes, bool]]]:
    """(path there, path here) of what is as it is; and what is written: programs, and RECORD."""
    pairs: list[tuple[str, str]] = []
    made: list[tuple[str, bytes, bool]] = []
    rows: list[plan.Row] = []
    place, bin_directory = holding.place, f"{python.schemes['scripts']}/"
    for row in item.rows:
        inner = place.inner(row.path, python)
        if inner is None or holding.kinds.get(row.path) not in ("file", "link"):
            continue
        if holding.kinds[row.path] == "link" and not _leads_to_file(fs, place.anchor / row.path):
            continue
        if inner.startswith(bin_directory):
            content = fs.read(fs.resolve(place.anchor / row.path))
            changed = scripts.rebound(content, place.python, str(layout.python))
            if changed is not None:
                made.append((inner, changed, True))
                rows.append(plan.row_of(inner, changed))
                continue
        pairs.append((row.path, inner))
        rows.append(plan.Row(inner, row.hash, row.size))
    dist_info = item.distribution.dist_info
    made.append((f"{dist_info}/RECORD", plan.write_record(rows, dist_info), False))
    return pairs, made


def _leads_to_file(fs: FileSystem, path: Path) -> bool:
    found = fs.entry(fs.resolve(path))
    return found is not None and found.kind == "file"


def _bring_byte_code(fs: FileSystem, holding: Holding, python: Interpreter, target: Path) -> None:
    """Without it the checks would compile all that they import."""
    pairs = []
    for path, kind in holding.kinds.items():
        head, _, name = path.rpartition("/")
        if kind == "file" and name.endswith(".pyc") and head.rpartition("/")[2] == "__pycache__":
            inner = holding.place.inner(path, python)
            if inner is not None and fs.is_directory((target / inner).parent.parent):
                pairs.append((path, inner))
    fs.make_directories(target, sorted({inner.rpartition("/")[0] for _, inner in pairs}))
    fresh = [pair for pair in pairs if fs.entry(target / pair[1]) is None]
    fs.link_files(holding.place.anchor, target, fresh, copy=False, tick=lambda _: None)
