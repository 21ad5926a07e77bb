"""What people type in a virtual environment, as data; test_habits.py runs it.

The list was put together from what is asked most about pip, venv and notebooks: how an environment is entered and
left, how packages get in and out, how programs find the interpreter, what notebooks, test runners and editors do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Tried = Literal["both", "siteswap"]

RAN_ON = ("3.9", "3.10", "3.11", "3.12", "3.13")
"""Where the whole list passed last, with SITESWAP_STRESS=1; the index's part on the newest."""


@dataclass(frozen=True)
class Habit:
    """Something that people do, in the shell lines that they type, and what comes of it.

    The environment is `.venv` in the working directory, and active unless `active` says otherwise. In both a plain
    venv and one of siteswap the lines must end with `status`, and stdout must have each line of `shows`. Unless
    `differs` says how they differ, stdout is the same in both, word for word (the physical path of a generation
    counts as that of the environment). `says` is what siteswap tells besides.
    """

    name: str
    typed: str
    shows: tuple[str, ...] = ()
    generations: int = 0
    says: tuple[str, ...] = ()
    differs: str = ""
    plain: bool = True
    status: int = 0
    plain_status: int = 0
    active: bool = True
    pip: bool = True
    drift: bool = False
    """Whether the lines change a generation that is published, or the environment as a whole."""
    own_cache: bool = False
    long: bool = False
    """Whether it is left to runs at full length."""
    needs: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    index: bool = False
    online: bool = False
    """Whether what is typed asks the index itself; it gets a home directory of its own then."""
    programs: tuple[str, ...] = ()
    since: int = 9

    @property
    def row(self) -> str:
        """Its line of the table."""
        typed = self.typed.replace("|", "\\|").replace("{base}", "python3")
        lines = "<br>".join(f"`{line}`" for line in typed.splitlines() if line)
        return f"| {self.name} | {lines} | {self.outcome} | {self.differs or '–'} |"

    @property
    def outcome(self) -> str:
        """What happens, as the page has it. The tests hold each of these to be so."""
        if self.generations:
            return "a transaction by itself" if self.generations == 1 else "transactions by themselves"
        if self.says:
            return "says what to do"
        return "as before" if self.status == self.plain_status else "fails"


REQUIREMENTS = {"requirements.txt": "demo==1.0\n"}

PROJECT = {
    "pyproject.toml": (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "mine"\nversion = "1.0"\n'
    ),
    "src/mine.py": "VALUE = 'one'\n",
    "backend.py": '''\
"""Builds an editable wheel with nothing but the standard library, so that no index is needed."""
import os, zipfile

def build_editable(directory, settings=None, metadata=None):
    name = "mine-1.0-py3-none-any.whl"
    files = {
        "mine.pth": os.path.abspath("src") + "\\n",
        "mine-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n",
        "mine-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = "".join(path + ",,\\n" for path in files) + "mine-1.0.dist-info/RECORD,,\\n"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, text in {**files, "mine-1.0.dist-info/RECORD": record}.items():
            archive.writestr(path, text)
    return name
''',
}  # fmt: skip

SPAWN = {
    "spawn.py": (
        "import multiprocessing, sys\n\n"
        "def work(number):\n    import demo\n    return number, sys.prefix != sys.base_prefix, demo.__version__\n\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    with multiprocessing.Pool(2) as pool:\n        print(pool.map(work, range(2)))\n"
    )
}

PHYSICAL = (
    "the path is that of the generation: `ENV/.siteswap/generations/N/…`; it goes on leading to a live one"
)

NOTEBOOK = {
    "notebook.py": """\
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3")

def cell(code):
    said = []
    def hook(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            said.append(content["text"])
        if message["msg_type"] == "error":
            said.append(content["ename"] + ": " + content["evalue"])
    client.execute_interactive(code, output_hook=hook, timeout=60)
    return "".join(said).strip()

print(cell("import siteswap_demo_helper"))
print("\\x1b" in cell("%pip install -q siteswap-demo-helper"))
print(cell("import siteswap_demo_helper; print(siteswap_demo_helper.__version__)"))
cell("!pip install -q demo")
print(cell("import demo; print(demo.__version__)"))
manager.restart_kernel()
client.wait_for_ready(timeout=60)
print(cell("import demo, sys; print(demo.__version__, sys.executable)"))
print(cell("!which python"))
manager.shutdown_kernel()
"""
}

TESTS = {"test_it.py": "import demo, sys\n\ndef test_it():\n    assert demo.__version__ == '2.0'\n"}

HABITS: tuple[Habit, ...] = (
    # -- entering and leaving
    Habit(
        "activate, which python, deactivate",
        'which python\necho "$VIRTUAL_ENV"\ndeactivate\necho "[${VIRTUAL_ENV-gone}]"\nwhich python3',
        shows=("ENV/bin/python", "ENV", "[gone]"),
        pip=False,
    ),
    Habit(
        "the prompt names the environment",
        'PS1=\'$ \'\n. .venv/bin/activate\necho "$PS1"\ndeactivate\necho "$PS1"',
        shows=("(.venv) $ ", "$ "),
        active=False,
        pip=False,
    ),
    Habit(
        "activate in fish",
        "fish --no-config -c '. .venv/bin/activate.fish; which python; deactivate; echo \"[$VIRTUAL_ENV]\"'",
        shows=("ENV/bin/python", "[]"),
        active=False,
        pip=False,
        programs=("fish",),
    ),
    Habit(
        "run without activating",
        ".venv/bin/python -c 'import sys; print(sys.executable)'",
        shows=("ENV/bin/python",),
        active=False,
        pip=False,
    ),
    Habit(
        "ask whether this is a virtual environment",
        "python -c 'import sys, os; print(sys.prefix != sys.base_prefix, os.environ[\"VIRTUAL_ENV\"])'",
        shows=("True ENV",),
        pip=False,
    ),
    Habit(
        "compare `sys.prefix` with `VIRTUAL_ENV`",
        "python -c 'import sys, os; print(sys.prefix == os.environ[\"VIRTUAL_ENV\"])'",
        differs="`sys.prefix` is the generation's path, so that data files match the modules: compare with `samefile`",
        pip=False,
    ),
    Habit(
        "python -m site, site.getsitepackages()",
        "python -m site | grep site-packages\npython -c 'import site; print(*site.getsitepackages())'",
        differs="`python -m site` runs `site` a second time, and so names the directory twice: generation and environment",
        pip=False,
    ),
    # -- pip
    Habit(
        "pip install X, pip check, and run its program",
        "pip install -q demo\npip check\ndemo\npython -c 'import demo; print(demo.__version__)'",
        shows=("No broken requirements found.", "2.0"),
        generations=1,
    ),
    Habit(
        "python -m pip install X==1, PIP_REQUIRE_VIRTUALENV=1",
        "export PIP_REQUIRE_VIRTUALENV=1\npython -m pip install demo==1.0 | tail -1\ndemo",
        shows=("1.0",),
        generations=1,
    ),
    Habit(
        "pip install where there is no pip",
        "python -m pip install demo",
        status=1,
        plain_status=1,
        plain=False,
        pip=False,
        says=("there is no pip in this environment", "siteswap install"),
        differs="a new environment is empty; `siteswap install` needs no pip in it",
    ),
    Habit(
        "pip where there is none but another Python's, further on PATH",
        "PATH=$PWD/other:$PATH\n. .venv/bin/activate\npip install demo || sh -c 'pip3 install demo' || siteswap exec -- pip install demo",
        files={
            "other/pip": "#!/bin/sh\necho works on another Python\n",
            "other/pip3": "#!/bin/sh\necho works on another Python\n",
        },
        status=1,
        plain=False,
        pip=False,
        active=False,
        says=("there is no pip in this environment", "siteswap install NAME", "nothing was changed"),
        differs="a plain venv without pip (uv makes them so) lets the other pip work on the other Python",
    ),
    Habit(
        "python -m ensurepip",
        "python -m ensurepip --upgrade --default-pip >/dev/null\npip --version | cut -d' ' -f1",
        shows=("pip",),
        generations=1,
        pip=False,
    ),
    Habit(
        "pip install -r requirements.txt",
        "pip install -q -r requirements.txt\npip list --format freeze | grep -v -e pip -e setuptools",
        shows=("demo==1.0", "siteswap-demo-helper==1.0"),
        generations=1,
        files=REQUIREMENTS,
    ),
    Habit(
        "pip install -e . and go on editing",
        "pip install -q -e .\npython -c 'import mine; print(mine.VALUE)'\n"
        "echo \"VALUE = 'edited'\" > src/mine.py\npython -c 'import mine; print(mine.VALUE)'",
        shows=("one", "edited"),
        generations=1,
        files=PROJECT,
    ),
    Habit(
        "pip freeze, everything out, everything in again",
        "pip install -q demo==1.0\npip freeze > frozen.txt\ncat frozen.txt\n"
        "pip freeze | xargs pip uninstall -q -y\npip freeze\npip install -q -r frozen.txt\ndemo",
        shows=("demo==1.0", "siteswap-demo-helper==1.0", "1.0"),
        generations=3,
        long=True,
    ),
    Habit(
        "pip install --upgrade, pip list --outdated",
        "pip install -q demo==1.0\npip list --outdated | grep demo\npip install -q --upgrade demo\ndemo",
        shows=("2.0",),
        generations=2,
    ),
    Habit(
        "pip install --upgrade pip",
        "python -m pip install -q --upgrade pip\npip --version | cut -d' ' -f1,2",
        shows=("pip 99.0",),
        generations=1,
        long=True,
    ),
    Habit(
        "pip uninstall, no to its question; pip uninstall -y",
        "pip install -q demo\necho n | pip uninstall demo >/dev/null\ndemo\npip uninstall -y demo | tail -1\ndemo || echo gone",
        shows=("2.0", "gone"),
        generations=2,
        long=True,
    ),
    Habit(
        "pip show -f",
        "pip install -q demo\npip show -f demo",
        shows=("Name: demo", "  demo/__init__.py"),
        generations=1,
        differs="RECORD does not list byte-code, which is a cache",
        long=True,
    ),
    Habit(
        "pip install --no-deps",
        "pip install -q --no-deps demo\npip check",
        status=0,
        plain_status=1,
        says=(
            "demo 2.0: needs siteswap-demo-helper, which is not installed",
            "siteswap exec OPTION -- pip install",
        ),
        differs="refused where something is missing then",
    ),
    Habit(
        "pip install --no-deps of a complete list",
        "pip install -q --no-deps demo==1.0 siteswap-demo-helper==1.0\ndemo",
        shows=("1.0",),
        generations=1,
        long=True,
    ),
    Habit(
        "pip install of what cannot be imported",
        "pip install -q broken demo || echo failed\npip freeze",
        shows=("failed",),
        says=("import broken fails", "siteswap exec OPTION -- pip install"),
        differs="refused, as by any command of siteswap; a plain venv has it then",
        long=True,
    ),
    Habit(
        "pip download, pip wheel, pip cache, pip config",
        "pip download -q -d down demo\npip wheel -q -w made demo\nls down made\npip cache dir\npip config get no.such",
        status=1,
        plain_status=1,
        shows=("demo-2.0-py3-none-any.whl",),
    ),
    Habit(
        "pip install --target",
        "pip install -q --target vendor demo\nPYTHONPATH=vendor python -c 'import demo; print(demo.__version__)'",
        shows=("2.0",),
    ),
    Habit(
        "pip install --user",
        "pip install -q --user demo",
        status=1,
        plain_status=1,
    ),
    Habit(
        "pip --python ENV from outside",
        "deactivate\n{base} -m pip --python .venv/bin/python install -q demo\n.venv/bin/demo",
        shows=("2.0",),
        drift=True,
        since=11,
        differs="noticed by the next command of siteswap, named and carried along",
    ),
    # -- programs
    Habit(
        "a script with a shebang",
        "printf '#!%s\\nimport demo; print(demo.__version__)\\n' \"$PWD/.venv/bin/python\" > tool\n"
        "printf '#!/usr/bin/env python\\nimport demo; print(demo.__version__)\\n' > other\n"
        "chmod +x tool other\n./tool\n./other",
        shows=("2.0",),
        needs=("demo",),
        pip=False,
    ),
    Habit(
        "cron: a program by its full path, no environment",
        'env -i "$PWD/.venv/bin/demo"\ncd /\nenv -i "$OLDPWD/.venv/bin/python" -m demo',
        shows=("2.0",),
        needs=("demo",),
        active=False,
        pip=False,
    ),
    Habit(
        "a link in ~/bin to a program",
        "mkdir bin\nln -s ../.venv/bin/demo bin/demo\nbin/demo",
        shows=("2.0",),
        needs=("demo",),
        active=False,
        pip=False,
    ),
    Habit(
        "a program that starts sys.executable",
        "python -c 'import subprocess, sys; "
        'subprocess.run([sys.executable, "-c", "import demo; print(demo.__version__)"], check=True)\'',
        shows=("2.0",),
        needs=("demo",),
        pip=False,
    ),
    Habit(
        "a program that installs what it lacks",
        "python -c 'import subprocess, sys\n"
        'subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "demo"])\n'
        "import demo; print(demo.__version__)'",
        shows=("2.0",),
        generations=1,
        long=True,
    ),
    Habit(
        "multiprocessing, spawn",
        "python spawn.py",
        shows=("[(0, True, '2.0'), (1, True, '2.0')]",),
        needs=("demo",),
        files=SPAWN,
        pip=False,
    ),
    Habit(
        "python -m compileall",
        "python -m compileall -q \"$VIRTUAL_ENV/lib\" && python -c 'import demo; print(demo.__cached__[-4:])'",
        shows=(".pyc",),
        needs=("demo",),
        pip=False,
    ),
    Habit(
        "PYTHONPATH=src",
        "mkdir src; echo 'VALUE = 7' > src/near.py\nPYTHONPATH=src python -c 'import near, demo; print(near.VALUE)'",
        shows=("7",),
        needs=("demo",),
        pip=False,
    ),
    Habit(
        "importlib.metadata",
        "python -c 'from importlib.metadata import version, files, distributions\n"
        'print(version("demo"), len(files("demo")) > 3, *sorted(d.metadata["Name"] for d in distributions()))\'',
        needs=("demo",),
        pip=False,
    ),
    Habit(
        'python -c "import X; print(X.__file__)"',
        "python -c 'import demo; print(demo.__file__.startswith(\"'$VIRTUAL_ENV'/lib\"))'",
        needs=("demo",),
        pip=False,
        differs=PHYSICAL,
    ),
    Habit(
        "edit an installed file to look at something",
        "echo 'print(\"looked\")' >> $(python -c 'import demo; print(demo.__file__)')\npython -c 'import demo'",
        shows=("looked",),
        needs=("demo",),
        pip=False,
        drift=True,
        own_cache=True,
        differs="a file is shared by hard links with other generations, other environments and the cache, so an edit in place shows in all; `siteswap doctor` finds them and puts them right",
    ),
    # -- other tools
    Habit(
        "python -m venv from inside",
        "python -m venv --without-pip inner\ninner/bin/python -c 'import sys; print(sys.prefix)'",
        shows=("PROJECT/inner",),
        pip=False,
    ),
    Habit(
        "python -m venv over it",
        "deactivate\n{base} -m venv --without-pip .venv && .venv/bin/python -c 'import demo'",
        needs=("demo",),
        pip=False,
        status=1,
        drift=True,
        differs="venv refuses (Unable to create directory), because `bin` is a link; what is installed stays. `--clear` works",
    ),
    Habit(
        "python -m venv --clear, to start afresh",
        "deactivate\n{base} -m venv --without-pip --clear .venv\n"
        ".venv/bin/python -c 'import demo' 2>/dev/null || echo fresh\nls -a .venv | grep siteswap",
        needs=("demo",),
        shows=("fresh",),
        status=1,
        plain_status=1,
        pip=False,
        drift=True,
    ),
    Habit(
        "uv pip list",
        "uv pip list -q --format freeze",
        shows=("demo==2.0", "siteswap-demo-helper==1.0"),
        needs=("demo",),
        pip=False,
    ),
    Habit(
        "uv pip install",
        "uv pip install -q demo\ndemo",
        shows=("2.0",),
        pip=False,
        drift=True,
        differs="noticed by the next command of siteswap, named and carried along; `siteswap exec -- uv …` makes it a transaction",
    ),
    Habit(
        "uv run --active",
        "uv run -q --active --no-project python -c 'import sys, demo; print(sys.executable, demo.__version__)'",
        shows=("ENV/bin/python 2.0",),
        needs=("demo",),
        pip=False,
    ),
    Habit(
        "an editor looks for the interpreter",
        "ls .venv/pyvenv.cfg .venv/bin/python .venv/bin/activate\ngrep -c '^home = ' .venv/pyvenv.cfg\n"
        ".venv/bin/python -I -c 'import json, sys; print(json.dumps([sys.version_info[:3], sys.executable]))'",
        active=False,
        pip=False,
    ),
    # -- the directory itself
    Habit(
        "rm -rf .venv and start again",
        "deactivate\nrm -rf .venv\n{base} -m venv --without-pip .venv\n.venv/bin/python -c 'import demo' 2>/dev/null || echo fresh",
        shows=("fresh",),
        needs=("demo",),
        pip=False,
        drift=True,
    ),
    Habit(
        "cp -a to another place (COPY --from), and run",
        "cp -a .venv elsewhere\nelsewhere/bin/python -c 'import sys, demo; print(sys.executable, demo.__version__)'",
        shows=("PROJECT/elsewhere/bin/python 2.0",),
        needs=("demo",),
        active=False,
        pip=False,
    ),
    Habit(
        "cp -a to another place, and install there",
        "cp -a .venv elsewhere\nelsewhere/bin/python -m pip install -q demo\n",
        active=False,
        status=4,
        says=("this environment was made at ENV", "create a new one here and sync it"),
        differs="refused: its programs name the place where it was made",
    ),
    Habit(
        "mv, and run",
        "mv .venv elsewhere\nelsewhere/bin/python -c 'import demo; print(demo.__version__)'\nelsewhere/bin/demo",
        needs=("demo",),
        status=127,
        plain_status=127,
        active=False,
        pip=False,
        drift=True,
    ),
    # -- tools from the index
    Habit(
        "a notebook: %pip install, import in the next cell, !pip, restart",
        "python notebook.py",
        shows=(
            "ModuleNotFoundError: No module named 'siteswap_demo_helper'",
            "1.0",
            "2.0",
            "2.0 ENV/bin/python",
            "ENV/bin/python",
        ),
        generations=2,
        needs=("ipykernel",),
        files=NOTEBOOK,
        index=True,
    ),
    Habit(
        "pytest, pytest-xdist, coverage",
        "pytest -q test_it.py | sed 's/ in .*//'\npytest -q -n 2 test_it.py | grep -o '1 passed'\n"
        "coverage run -m pytest -q test_it.py >/dev/null\ncoverage report",
        shows=("1 passed",),
        needs=("demo", "pytest", "pytest-xdist", "coverage"),
        pip=False,
        files=TESTS,
        index=True,
    ),
    Habit(
        "pip install next to a setuptools with copies of others in it",
        "pip install -q demo\npython -c 'import packaging; print(packaging.__file__.count(\"_vendor\"))'\ndemo",
        shows=("0", "2.0"),
        generations=1,
        needs=("setuptools>=80", "packaging"),
        index=True,
    ),
)


PAGE = """\
# What works as before

What people do in a virtual environment today, as the tests run it: in an environment of siteswap and in a plain venv
beside it. Each line is one test; this page is made of their list (`python tests/tools.py > docs/compatibility.md`), and a
test holds it to that. "A transaction by itself": one generation came of it and what was published before did not change.
"As before": no generation came of it. "Says what to do": it was refused, and stderr names the way out. Output was
the same, word for word, wherever the last column does not say otherwise; the path of a generation
(`ENV/.siteswap/generations/N`) counts as that of the environment.

The environment is `.venv`, and has pip in it where pip is typed; `demo` and `siteswap-demo-helper` are two small distributions.

It passed at full length (`SITESWAP_STRESS=1`) on Linux with CPython {own}; the second
table, which needs the index, with {newest}. The default run leaves out some lines that take long, and tries those that
install something without the plain venv beside.

{offline}

With tools from the index:

{index}
{more}"""

_HEAD = "| habit | typed | what happens | where it differs from a plain venv |\n|---|---|---|---|\n"


def page(more: str) -> str:
    """docs/compatibility.md, with what follows the habits."""
    tables = ["\n".join(habit.row for habit in HABITS if habit.index is index) for index in (False, True)]
    return PAGE.format(
        own=", ".join(RAN_ON),
        newest=RAN_ON[-1],
        offline=_HEAD + tables[0],
        index=_HEAD + tables[1],
        more=more,
    )
