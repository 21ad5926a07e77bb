"""Make small wheels, sdists and indexes for tests: real files in the real formats."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def wheel(
    directory: Path,
    name: str,
    version: str = "1.0",
    files: Mapping[str, str | bytes] | None = None,
    *,
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    scripts: Mapping[str, str] | None = None,
    gui_scripts: Mapping[str, str] | None = None,
    plugins: Mapping[str, Mapping[str, str]] | None = None,
    data: Mapping[str, str | bytes] | None = None,
    executable: Iterable[str] = (),
    tag: str = "py3-none-any",
    tag_inside: str | None = None,
    name_inside: str | None = None,
    pure: bool = True,
    extra_metadata: Iterable[str] = (),
    record: Mapping[str, str | None] | None = None,
) -> Path:
    """Write a wheel and return its path.

    `files` are relative to site-packages (default: a package that knows its
    version), `data` relative to the `.data` directory ("scripts/x", "data/etc/x",
    "headers/x.h"). `scripts` are console entry points: name to "module:attr"; `plugins`
    are those of other groups. The file's name and `tag` count in the archive too, unless
    `name_inside` and `tag_inside` contradict them.
    `record` overrides rows of RECORD: a hash, or None to leave the row out.
    """
    module = name.replace("-", "_").replace(".", "_")
    stem = f"{module}-{version}"
    contents: dict[str, bytes] = {}
    if files is None:
        files = {
            f"{module}/__init__.py": f"__version__ = {version!r}\n\n\ndef main():\n    print({version!r})\n"
        }
    for path, content in files.items():
        contents[path] = content.encode() if isinstance(content, str) else content
    for path, content in (data or {}).items():
        contents[f"{stem}.data/{path}"] = content.encode() if isinstance(content, str) else content
    metadata = ["Metadata-Version: 2.1", f"Name: {name_inside or name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    if requires_python:
        metadata.append(f"Requires-Python: {requires_python}")
    metadata += extra_metadata
    contents[f"{stem}.dist-info/METADATA"] = ("\n".join(metadata) + "\n").encode()
    about = ["Wheel-Version: 1.0", "Generator: tests", f"Root-Is-Purelib: {str(pure).lower()}"]
    about.append(f"Tag: {tag_inside or tag}")
    contents[f"{stem}.dist-info/WHEEL"] = ("\n".join(about) + "\n").encode()
    points = ""
    groups = (("console_scripts", scripts), ("gui_scripts", gui_scripts), *(plugins or {}).items())
    for group, entries in groups:
        if entries:
            points += f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
    if points:
        contents[f"{stem}.dist-info/entry_points.txt"] = points.encode()
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for path, body in contents.items():
        digest = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")
        if record is not None and path in record:
            override = record[path]
            if override is None:
                continue
            digest = override
        writer.writerow((path, digest, len(body)))
    writer.writerow((f"{stem}.dist-info/RECORD", "", ""))
    contents[f"{stem}.dist-info/RECORD"] = rows.getvalue().encode()
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{stem}-{tag}.whl"
    marked = set(executable)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in contents.items():
            info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (0o100755 if path in marked else 0o100644) << 16
            archive.writestr(info, body)
    return target


def application(directory: Path, version: str) -> list[Path]:
    """A two-distribution application whose parts must agree: `swapapp` and its library `swaplib`.

    `swapapp` has a console script; every module carries the version; `report`
    says what one process sees of it, lazily imported modules included.
    """
    library = wheel(
        directory,
        "swaplib",
        version,
        {
            "swaplib/__init__.py": f"VERSION = {version!r}\n",
            "swaplib/lazy.py": f"VERSION = {version!r}\n",
        },
    )
    program = wheel(
        directory,
        "swapapp",
        version,
        {
            "swapapp/__init__.py": f"VERSION = {version!r}\n",
            "swapapp/late.py": f"VERSION = {version!r}\n",
            "swapapp/__main__.py": "from swapapp.report import main\nmain()\n",
            "swapapp/report.py": _REPORT,
        },
        requires=[f"swaplib=={version}"],
        data={"scripts/swapapp": f"#!python\nSCRIPT = {version!r}\n" + _SCRIPT},
    )
    return [library, program]


_REPORT = '''\
"""Everything that one process can see of the application's version."""


def versions():
    import swapapp
    seen = [swapapp.VERSION]
    import swaplib
    seen.append(swaplib.VERSION)
    from importlib.metadata import version
    seen += [version("swapapp"), version("swaplib")]
    import swaplib.lazy
    import swapapp.late
    return seen + [swaplib.lazy.VERSION, swapapp.late.VERSION]


def main(extra=()):
    seen = [*extra, *versions()]
    print("same" if len(set(seen)) == 1 else "mixed", *seen)
'''

_SCRIPT = """\
from swapapp.report import main
main([SCRIPT])
"""
