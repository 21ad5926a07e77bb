"""Tools that people use with virtual environments, as data; test_tools.py runs them.

Each is a habit (see habits.py) with the tool it belongs to. What was seen, on which Python and with which version, is
in compatibility.json, written by `SITESWAP_STRESS=1 SITESWAP_RECORD=1 pytest tests/test_tools.py`; `python
tests/tools.py` makes the page from all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import habits
from habits import Habit

RECORD = Path(__file__).with_name("compatibility.json")

Seen = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Tool, Python → what came of it (`result`), the tool's `version`, and on `failed` why."""

AS_EXPECTED = "as expected"
NOT_PLAIN_EITHER = "not in a plain venv either"
"""On a Python older than `since`: seen to fail there."""


@dataclass(frozen=True)
class Tool(Habit):
    """A tool, and a sequence of what is done with it."""

    kind: str = ""
    beside: tuple[str, ...] = ()
    """The tool's distribution where it is installed outside of the environment, as by `uv tool install`, and what
    else there must be with it."""
    version: str = ""
    """What prints the tool's version; `beside` and the last of `needs` know by themselves."""
    sample: bool = False
    """Whether the default run tries it."""
    before: str = ""
    """What is said in a plain venv on a Python older than `since`."""


NOTICED = "noticed by the next command of siteswap, named and carried along; `siteswap exec -- {}` makes it a transaction"
PHYSICAL = "file names are those of the generation (`ENV/.siteswap/generations/N/…`)"

PROJECT = '[project]\nname = "mine"\nversion = "1.0"\nrequires-python = ">=3.9"\ndependencies = [{}]\n'
POETRY = {
    "pyproject.toml": PROJECT.format('"demo==1.0"') + "[tool.poetry]\npackage-mode = false\n"
    '[[tool.poetry.source]]\nname = "near"\nurl = "{index}"\npriority = "primary"\n'
}
PDM = {
    "pyproject.toml": PROJECT.format('"demo==1.0"') + "[tool.pdm]\ndistribution = false\n"
    '[[tool.pdm.source]]\nname = "pypi"\nurl = "{index}"\nverify_ssl = false\n'
}
CODE_FOR_3_10 = "TypeError: unsupported operand type(s) for |: 'type' and 'type'"
UV = {"pyproject.toml": PROJECT.format('"demo==1.0"') + "[tool.uv]\npackage = false\n"}
HATCH = (
    '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    + PROJECT.format('"six==1.16.0"')
    + '[tool.hatch.build]\ninclude = ["mine.py"]\n'
)
FLIT = {
    "pyproject.toml": '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
    '[project]\nname = "mine"\nversion = "1.0"\ndescription = "mine"\nscripts = {mine = "mine:main"}\n',
    "mine.py": '"""mine"""\nVALUE = 1\n\n\ndef main():\n    print("mine", VALUE)\n',
}
SETUP = {
    "setup.py": "from setuptools import Extension, setup\nsetup(name='mine', version='1.0', py_modules=['mine'],\n"
    "      ext_modules=[Extension('_mine', ['_mine.c'])],\n"
    "      entry_points={'console_scripts': ['mine=mine:main']})\n",
    "mine.py": "import _mine\n\n\ndef main():\n    print('mine', _mine.__doc__)\n",
    "_mine.c": '#include <Python.h>\nstatic struct PyModuleDef it = {PyModuleDef_HEAD_INIT, "_mine", "in C", -1, 0};\n'
    "PyMODINIT_FUNC PyInit__mine(void) { return PyModule_Create(&it); }\n",
}
MAKE = {
    "Makefile": "PREFIX ?= $(VIRTUAL_ENV)\ninstall:\n\tmkdir -p $(PREFIX)/share/mine\n"
    "\tinstall -m 755 tool $(PREFIX)/bin/tool\n\techo data > $(PREFIX)/share/mine/data\n"
    "\tpython -m pip install -q --no-deps demo==1.0 siteswap-demo-helper\n",
    "tool": "#!/bin/sh\necho a tool\n",
}
FRESH = (
    "{made}\ncat inner/pyvenv.cfg | grep ^home\nreadlink -f inner/bin/python\nmv .venv moved\n"
    "inner/bin/python -c 'import sys; print(sys.prefix, sys.prefix != sys.base_prefix)'\nmv moved .venv"
)
XDIST = {
    "test_it.py": "import importlib.metadata, pathlib, time\nimport demo, pytest\n\n"
    "@pytest.mark.parametrize('number', [1, 2])\ndef test_it(number):\n"
    "    pathlib.Path(f'ready-{number}').touch()\n"
    "    while not pathlib.Path('go').exists():\n        time.sleep(0.05)\n"
    "    assert demo.__version__ == importlib.metadata.version('demo')\n",
}
MAIN = {"main.py": "import demo\nVALUE = demo.__version__\nprint(VALUE)\n"}
PARENT = {
    "main.py": "import subprocess, sys\nsubprocess.run([sys.executable, 'child.py'], check=True)\n",
    "child.py": "import demo\nprint(demo.__version__)\n",
    ".coveragerc": "[run]\nparallel = true\nsource = .\nomit = .venv/*\n",
}
PATHS = {
    "paths.ini": "[run]\nsource_pkgs = demo\n[paths]\ndemo =\n    .venv/lib/pythonX/site-packages\n"
    "    */.siteswap/generations/*/lib/*/site-packages\n",
}
CODE_ASKS = """\
import json, os, pathlib, subprocess

env = pathlib.Path(".venv").absolute()
lines = [line.partition("=") for line in (env / "pyvenv.cfg").read_text().splitlines()]
config = {name.strip(): value.strip() for name, _, value in lines}
print(config["home"], config["include-system-site-packages"])
script = "import json, sys; print(json.dumps(['.'.join(map(str, sys.version_info)), sys.prefix, sys.executable, sys.maxsize]))"
for name in ("python", "python3"):
    told = subprocess.check_output([env / "bin" / name, "-c", script], text=True)
    version, prefix, executable, _ = found = json.loads(told)
    print(*found)
    assert config["version"].split(".")[:3] == version.split(".")[:3]
    assert os.path.samefile(executable, env / "bin" / name)
    assert os.path.samefile(prefix + "/bin", env / "bin")
print(subprocess.check_output([env / "bin/python", "-I", "-c", script], text=True).strip())
"""
DAP = '''\
"""Says and hears what an editor and its debugger do."""
import json, os, select

class Session:
    def __init__(self, incoming, outgoing):
        self.incoming, self.outgoing, self.number, self.data, self.kept = incoming, outgoing, 0, b"", []

    def send(self, command, **arguments):
        self.number += 1
        body = {"seq": self.number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(body).encode()
        os.write(self.outgoing.fileno(), b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)

    def hear(self, seconds):
        while True:
            head, mark, rest = self.data.partition(b"\\r\\n\\r\\n")
            length = int(head.split(b":")[1]) if mark else 0
            if mark and len(rest) >= length:
                self.data = rest[length:]
                return json.loads(rest[:length])
            if not select.select([self.incoming], [], [], seconds)[0]:
                return None
            more = os.read(self.incoming.fileno(), 65536)
            assert more, "the other side hung up"
            self.data += more

    def until(self, kind, name, seconds=60):
        """What is told by an event or a response; None if it does not come. Others are kept for later."""
        for message in self.kept:
            if (message["type"], message.get("command", message.get("event"))) == (kind, name):
                break
        else:
            while message := self.hear(seconds):
                if (message["type"], message.get("command", message.get("event"))) == (kind, name):
                    break
                self.kept.append(message)
            else:
                return None
            self.kept.append(message)
        self.kept.remove(message)
        assert message.get("success", True), message
        return message.get("body", {})

    def ask(self, command, **arguments):
        self.send(command, **arguments)
        told = self.until("response", command)
        assert told is not None, command
        return told

    def start(self, how, breakpoints, **arguments):
        self.ask("initialize", adapterID="python", pathFormat="path", linesStartAt1=True)
        self.send(how, justMyCode=False, **arguments)
        self.until("event", "initialized")
        for path, line in breakpoints.items():
            self.stop_at(path, line)
        self.ask("configurationDone")

    def stop_at(self, path, *lines):
        """Of all that is set in this file."""
        told = self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line} for line in lines])
        assert all(one["verified"] for one in told["breakpoints"]), told

    def stopped(self, *asked, seconds=60):
        """The file where it stops, the line, and what the expressions are there; None if it does not stop."""
        event = self.until("event", "stopped", seconds)
        if event is None:
            return None
        self.thread = event["threadId"]
        frame = self.ask("stackTrace", threadId=self.thread)["stackFrames"][0]
        values = [self.ask("evaluate", expression=one, frameId=frame["id"])["result"] for one in asked]
        return [frame["source"]["path"], frame["line"], *values]

    def go_on(self):
        self.ask("continue", threadId=self.thread)
'''
LAUNCH = {
    "dap.py": DAP,
    "main.py": "import demo\nvalue = demo.__version__\nprint('ran', value)\n",
    "client.py": """\
import os, subprocess, sys
import dap

words = [sys.executable, "-m", "debugpy.adapter"]
adapter = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
session = dap.Session(adapter.stdout, adapter.stdin)
main = os.path.abspath("main.py")
python = [os.environ["VIRTUAL_ENV"] + "/bin/python"]
session.start("launch", {main: 3}, program=main, python=python, console="internalConsole")
path, line, *values = session.stopped("value", "demo.__file__", "__import__('sys').executable")
print(os.path.basename(path), line)
print(*values, sep="\\n")
session.go_on()
session.until("event", "terminated")
session.send("disconnect", terminateDebuggee=True)
adapter.stdin.close()
adapter.wait(20)
""",
}
ATTACH = {
    "dap.py": DAP,
    "main.py": "import time\nimport demo, siteswap_demo_helper\n\nwhile True:\n"
    "    demo.main()\n    siteswap_demo_helper.main()\n    time.sleep(0.1)\n",
    "programs.py": '''\
"""Programs that wait for a debugger, and their files as an editor names them."""
import atexit, os, socket, subprocess, sys, time
import dap

env = os.environ["VIRTUAL_ENV"]
modules = env + "/lib/python%d.%d/site-packages/" % sys.version_info[:2]
demo, helper = modules + "demo/__init__.py", modules + "siteswap_demo_helper/__init__.py"

def program():
    """Start it, and connect to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    words = ["python", "-Xfrozen_modules=off", "-m", "debugpy", "--listen", port, "--wait-for-client", "main.py"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    for _ in range(600):
        try:
            link = socket.create_connection(("127.0.0.1", port))
            break
        except OSError:
            time.sleep(0.1)
            assert process.poll() is None
    session = dap.Session(link, link)
    session.process = process
    return session

def upgrade():
    subprocess.run(["pip", "install", "-q", "-U", "demo"], check=True)

def end(session):
    session.send("disconnect", terminateDebuggee=True)
    session.process.wait(20)
''',
    "before.py": """\
from programs import *

session = program()
session.start("attach", {demo: 5})
path, line, *values = session.stopped("__version__", "__file__")
print(line, *values, path)
upgrade()
session.go_on()
print(*session.stopped("__version__")[1:])
session.stop_at(demo)
session.stop_at(demo, 5)
session.go_on()
print(*session.stopped("__version__")[1:])
end(session)
subprocess.run(["demo"], check=True)
""",
    "after.py": """\
from programs import *

session, other = program(), program()
session.start("attach", {demo: 5})
prefix = session.stopped("__import__('sys').prefix")[2].strip("'")
upgrade()
session.stop_at(demo)
session.stop_at(helper, 5)
session.go_on()
known = found = session.stopped(seconds=5)
print("by the path in the environment:", "stops" if known else "does not stop")
if not known:
    session.stop_at(helper)
    session.stop_at(helper.replace(env, prefix), 5)
    found = session.stopped(seconds=20)
print("by the path that the stack shows:", "stops" if found else "does not stop")
end(session)
other.start("attach", {helper: 5}, pathMappings=[{"localRoot": env + "/lib", "remoteRoot": prefix + "/lib"}])
found = other.stopped(seconds=20)
print("with pathMappings:", "stops" if found and found[0] == helper else "does not stop")
end(other)
sys.exit(0 if known else 3)
""",
}

TOOLS: tuple[Tool, ...] = (
    # -- installers
    Tool(
        "pip", "siteswap exec -- python -m pip install -q demo==1.0 >log\ndemo\npip uninstall -q -y demo siteswap-demo-helper\npip freeze",
        kind="Installers", shows=("1.0",), generations=2, version="pip --version",
    ),
    Tool(
        "uv pip in a transaction",
        "siteswap exec -- uv pip install -q demo==1.0 >log\ndemo\nsiteswap exec -- sh -c 'uv pip install -q -U demo && uv pip uninstall -q siteswap-demo-helper && uv pip install -q siteswap-demo-helper' >log\ndemo",
        kind="Installers", shows=("1.0", "2.0"), generations=2, pip=False, version="uv --version", sample=True,
    ),
    Tool(
        "uv pip, directly", "uv pip install -q demo==1.0\ndemo\nuv pip list -q --format freeze",
        kind="Installers", shows=("1.0", "demo==1.0"), drift=True, pip=False, version="uv --version",
        differs=NOTICED.format("uv …"),
    ),
    Tool(
        "uv sync, uv add in a transaction",
        "siteswap exec -- uv sync -q --active >log\ndemo\nsiteswap exec -- uv add -q --active siteswap-demo-helper >log\nuv pip list -q --format freeze\ngrep -c siteswap-demo-helper pyproject.toml",
        kind="Installers", shows=("1.0", "demo==1.0", "siteswap-demo-helper==1.0"), generations=1, pip=False, files=UV, version="uv --version",
    ),
    Tool(
        "uv sync, uv add, uv run, directly",
        "uv sync -q\ndemo\nuv add -q 'demo>=2' 2>&1\nuv run -q python -c 'import demo; print(demo.__version__)'",
        kind="Installers", shows=("1.0", "2.0"), drift=True, pip=False, files=UV, version="uv --version",
        differs=NOTICED.format("uv sync --active"),
    ),
    Tool(
        "poetry in a transaction",
        "siteswap exec -- poetry install -q --no-interaction >log\ndemo\n"
        "siteswap exec -- poetry add -q --no-interaction demo==2.0 >log\ndemo",
        kind="Installers", shows=("1.0", "2.0"), generations=2, pip=False, files=POETRY, beside=("poetry",), index=True, online=True,
    ),
    Tool(
        "poetry, directly",
        "deactivate\npoetry config virtualenvs.in-project true --local\npoetry install -q --no-interaction\n"
        "poetry add -q --no-interaction demo==2.0\npoetry run python -c 'import demo; print(demo.__version__)'\npoetry env info --path",
        kind="Installers", shows=("2.0", "ENV"), drift=True, pip=False, files=POETRY, beside=("poetry",), index=True, online=True,
        differs=NOTICED.format("poetry …"),
    ),
    Tool(
        "pdm in a transaction",
        "siteswap exec -- pdm install -q >log\ndemo\n"
        "siteswap exec -- pdm add -q demo==2.0 >log\ndemo",
        kind="Installers", shows=("1.0", "2.0"), generations=2, pip=False, files=PDM, since=10, before=CODE_FOR_3_10, beside=("pdm", "hishel<1", "unearth<0.18"), index=True, online=True,
    ),
    Tool(
        "pdm, directly",
        "deactivate\npdm install -q\npdm add -q demo==2.0\npdm run python -c 'import demo, sys; print(demo.__version__, sys.executable)'",
        kind="Installers", shows=("2.0 ENV/bin/python",), drift=True, pip=False, files=PDM, since=10, before=CODE_FOR_3_10, beside=("pdm", "hishel<1", "unearth<0.18"), index=True, online=True,
        differs=NOTICED.format("pdm …"),
    ),
    Tool(
        "hatch, its own environment, from inside",
        "hatch -q run python -c 'import mine, six, sys; print(mine.VALUE, six.__version__, sys.prefix != sys.base_prefix, \".venv\" in sys.prefix)'",
        kind="Installers", shows=("1 1.16.0 True False",), pip=False, index=True, online=True, beside=("hatch",),
        files={"pyproject.toml": HATCH, "mine.py": "VALUE = 1\n"},
    ),
    Tool(
        "hatch with `path = \".venv\"`",
        "deactivate\nhatch -q run python -c 'import mine, six, sys; print(mine.VALUE, six.__version__, sys.executable)'",
        kind="Installers", shows=("1 1.16.0 ENV/bin/python",), generations=1, index=True, online=True, beside=("hatch",),
        files={"pyproject.toml": HATCH + '[tool.hatch.envs.default]\npath = ".venv"\n', "mine.py": "VALUE = 1\n"},
    ),
    Tool(
        "flit install, with --pth-file too",
        "export FLIT_ROOT_INSTALL=1\nsiteswap exec -- flit install >log\nmine\nsiteswap exec -- flit install --pth-file >log\nsed -i 's/VALUE = 1/VALUE = 2/' mine.py\nmine",
        kind="Installers", shows=("mine 1", "mine 2"), generations=2, needs=("flit",), files=FLIT, index=True, online=True,
    ),
    Tool(
        "flit install --symlink",
        "export FLIT_ROOT_INSTALL=1\nsiteswap exec -- flit install --symlink >log\n",
        kind="Installers", status=1, says=("mine.py is a link and not a regular file", "nothing was changed"),
        needs=("flit",), files=FLIT, index=True, online=True,
        differs="refused: links out of the environment are not taken in; `flit install --pth-file` and `pip install -e .` do the same",
    ),
    Tool(
        "setup.py install",
        "siteswap exec -- python setup.py -q install >log 2>&1\nmine\npip list --format freeze | grep mine",
        kind="Installers", shows=("mine in C", "mine==1.0"), generations=1, needs=("setuptools<80",), files=SETUP, index=True,
    ),
    Tool(
        "setup.py develop",
        "siteswap exec -- python setup.py -q develop >log 2>&1\nmine\npip list --format freeze | grep -o '^.*mine.*==1.0\\|#egg=mine'",
        kind="Installers", shows=("mine in C",), generations=1, needs=("setuptools<80",), files=SETUP, index=True,
    ),
    Tool(
        "make install", "siteswap exec -- make install >log\ntool\ncat .venv/share/mine/data\ndemo",
        kind="Installers", shows=("a tool", "data", "1.0"), generations=1, files=MAKE, sample=True, version="make --version", programs=("make",),
    ),
    Tool(
        "pip-tools", "pip-compile -q --strip-extras --no-header -o wanted.txt wanted.in\ngrep == wanted.txt\n"
        "pip install -q demo==1.0\npip-sync -q wanted.txt\npip list --format freeze | grep demo",
        kind="Installers", shows=("demo==2.0", "siteswap-demo-helper==1.0"), generations=2, needs=("pip-tools",), sample=True, files={"wanted.in": "demo\n"}, index=True,
    ),
    Tool(
        "pipenv in a transaction",
        "siteswap exec -- pipenv install -q six==1.16.0 >log 2>&1\npython -c 'import six; print(six.__version__)'",
        kind="Installers", shows=("1.16.0",), generations=1, index=True, online=True, since=10, before=CODE_FOR_3_10, beside=("pipenv",),
    ),
    # -- runners
    Tool(
        "tox", "tox -q 2>/dev/null | grep -e 2.0", kind="Runners", shows=("2.0",), needs=("tox",), sample=True, pip=False, index=True,
        files={"tox.ini": "[tox]\nskipsdist = true\nenv_list = py\n[testenv]\ndeps = demo\npass_env = PIP_*\ncommands = demo\n"},
    ),
    Tool(
        "nox, with venv, virtualenv and uv",
        "nox -f tests.py 2>/dev/null | grep 2.0", kind="Runners", shows=("2.0",), needs=("nox",), pip=False, index=True,
        files={
            "tests.py": "import nox\n\n@nox.session(venv_backend='venv')\ndef one(session):\n"
            "    session.install('demo')\n    session.run('demo')\n\n"
            "@nox.session(venv_backend='virtualenv')\ndef two(session):\n"
            "    session.install('demo')\n    session.run('demo')\n\n"
            "@nox.session(venv_backend='uv')\ndef three(session):\n    session.install('demo')\n    session.run('demo')\n"
        },
    ),
    Tool(
        "python -m venv from inside", FRESH.format(made="python -m venv --without-pip inner"), kind="Runners",
        shows=("PROJECT/inner True",), pip=False, drift=True, sample=True, version="python --version",
        differs="up to Python 3.10 what is made in a plain venv is bound to that venv and stops with it; here it stands on the base interpreter",
    ),
    Tool(
        "virtualenv from inside", FRESH.format(made="virtualenv -q inner"), kind="Runners",
        shows=("PROJECT/inner True",), pip=False, drift=True, needs=("virtualenv",), index=True,
    ),
    Tool(
        "uv venv from inside", FRESH.format(made="uv venv -q --python .venv/bin/python inner"), kind="Runners",
        shows=("PROJECT/inner True",), pip=False, drift=True, version="uv --version",
        differs="up to Python 3.10 what is made in a plain venv is bound to that venv and stops with it; here it stands on the base interpreter",
    ),
    Tool(
        "virtualenv over it", "deactivate\nvirtualenv -q .venv && .venv/bin/python -c 'import demo' 2>/dev/null || echo gone", kind="Runners",
        shows=("gone",), pip=False, drift=True, needs=("demo",), beside=("virtualenv",), index=True,
        differs="puts directories where links were, so a venv with nothing in it comes of it (a plain venv keeps what it has); `siteswap doctor` finds that and says the way back",
    ),
    Tool(
        "uv venv over it", "deactivate\nuv venv -q .venv 2>/dev/null && exit 3\n.venv/bin/python -c 'import demo; print(demo.__version__)'", kind="Runners",
        shows=("2.0",), pip=False, needs=("demo",), version="uv --version",
    ),
    Tool(
        "pre-commit", "git init -q .\ngit add main.py .pre-commit-config.yaml\npre-commit run | grep -o Passed", kind="Runners",
        shows=("Passed",), pip=False, needs=("pre-commit",), index=True, online=True, programs=("git",),
        files={
            **MAIN,
            ".pre-commit-config.yaml": "repos:\n- repo: local\n  hooks:\n  - id: six\n    name: six\n    language: python\n"
            "    entry: python -c 'import six; print(six.__version__)'\n    additional_dependencies: [six]\n",
        },
    ),
    # -- test tools
    Tool(
        "pytest-xdist, with an upgrade while it runs",
        "pip install -q demo==1.0\npytest -q -n 2 test_it.py >out.txt &\nwhile test ! -e ready-1 -o ! -e ready-2; do sleep .1; done\n"
        "pip install -q -U demo\ntouch go\nwait $!\nstatus=$?\ntail -1 out.txt | sed 's/ in .*//'\nexit $status",
        kind="Test tools", shows=("2 passed",), generations=2, needs=("pytest", "pytest-xdist"), files=XDIST, index=True,
        plain_status=1, differs="in the plain venv the tests fail: modules of the old version, metadata of the new one",
    ),
    Tool(
        "coverage, of one's own code", "coverage run -m main\ncoverage report | tr -s ' -'\ncoverage json -q\npython -c 'import json; print(*json.load(open(\"coverage.json\"))[\"files\"])'",
        kind="Test tools", shows=("2.0", "main.py"), needs=("demo", "coverage"), pip=False, files=MAIN, index=True, sample=True,
    ),
    Tool(
        "coverage, of an installed package, across generations",
        "sed -i s/pythonX/python$(python -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])')/ paths.ini\n"
        "coverage run -p --source=demo main.py\npip install -q --no-deps --force-reinstall siteswap-demo-helper\ncoverage run -p --source=demo main.py\n"
        "coverage combine -q --rcfile=paths.ini\ncoverage report --rcfile=paths.ini --include='*/demo/*' | grep -c __init__",
        kind="Test tools", shows=("2.0", "1"), generations=1, needs=("demo", "coverage"), files={**PATHS, **MAIN}, index=True,
        differs="paths are those of the generations, so a combined report lists a file once each unless `[paths]` has `.venv/lib/pythonX.Y/site-packages` and `*/.siteswap/generations/*/lib/*/site-packages`, as here",
    ),
    Tool(
        "coverage, of subprocesses, by a .pth file",
        "siteswap exec -- sh -c 'echo \"import coverage; coverage.process_startup()\" > \"$(python -c \"import sysconfig; print(sysconfig.get_path(\\\"purelib\\\"))\")/sub.pth\"' >log\n"
        "COVERAGE_PROCESS_START=.coveragerc coverage run main.py\ncoverage combine -q\ncoverage report | tr -s ' -'",
        kind="Test tools", shows=("2.0", "child.py 2 0 100%"), generations=1, needs=("demo", "coverage"), pip=False, files=PARENT, index=True,
    ),
    # -- static
    Tool(
        "mypy, inside and by --python-executable",
        "mypy typed.py\ndeactivate\n.venv/bin/mypy --python-executable .venv/bin/python typed.py", kind="Type checkers, linters, editors",
        shows=("Success: no issues found in 1 source file",), needs=("iniconfig", "mypy"), sample=True, pip=False, index=True,
        files={"typed.py": "import iniconfig\nprint(iniconfig.IniConfig)\n"},
    ),
    Tool(
        "pyright, by venv and by --pythonpath",
        "deactivate\npyright typed.py\npyright --pythonpath .venv/bin/python typed.py", kind="Type checkers, linters, editors",
        shows=("0 errors, 0 warnings, 0 informations",), needs=("iniconfig",), pip=False, index=True, online=True, beside=("pyright",),
        files={
            "typed.py": "import iniconfig\nprint(iniconfig.IniConfig)\n",
            "pyrightconfig.json": '{"venvPath": ".", "venv": ".venv", "reportMissingModuleSource": "error"}\n',
        },
    ),
    Tool(
        "basedpyright, by venv and by --pythonpath",
        "deactivate\nbasedpyright --level error typed.py\nbasedpyright --level error --pythonpath .venv/bin/python typed.py", kind="Type checkers, linters, editors",
        shows=("0 errors, 0 warnings, 0 notes",), needs=("iniconfig",), pip=False, index=True, beside=("basedpyright",),
        files={
            "typed.py": "import iniconfig\nprint(iniconfig.IniConfig)\n",
            "pyrightconfig.json": '{"venvPath": ".", "venv": ".venv"}\n',
        },
    ),
    Tool(
        "VS Code's questions to an interpreter", "deactivate\npython3 asks.py", kind="Type checkers, linters, editors", pip=False,
        files={"asks.py": CODE_ASKS}, version="python --version", sample=True,
    ),
    Tool(
        "jedi", "python -c 'import jedi; env = jedi.create_environment(\".venv\"); print(env.executable, env.version_info[:2])\n"
        "script = jedi.Script(\"import demo; demo.ma\", environment=env); print([c.name for c in script.complete()])'\n",
        kind="Type checkers, linters, editors", shows=("['main']",), needs=("demo", "jedi"), pip=False, index=True,
    ),
    # -- debuggers and profilers
    Tool(
        "debugpy, launch", "python client.py", kind="Debuggers and profilers",
        shows=("main.py 3", "'2.0'"), needs=("demo", "debugpy"), pip=False, files=LAUNCH, index=True,
    ),
    Tool(
        "debugpy, attach: a breakpoint in a module of the environment, and an upgrade meanwhile", "python before.py",
        kind="Debuggers and profilers", shows=("5 '1.0'", "2.0"), generations=1,
        needs=("demo==1.0", "debugpy"), files=ATTACH, index=True,
    ),
    Tool(
        "debugpy, attach: a breakpoint set for the first time after an upgrade", "python after.py",
        kind="Debuggers and profilers", generations=1, needs=("demo==1.0", "debugpy"), files=ATTACH, index=True,
        status=3, shows=("by the path in the environment: does not stop", "by the path that the stack shows: stops", "with pathMappings: stops"),
        differs="a program that was started before the upgrade does not stop there, though the debugger says that it is set: the path leads to the new "
        "generation. Set it in the file that the stack shows (`ENV/.siteswap/generations/N/…`), or attach with `pathMappings` from `ENV/lib` to `lib` in the program's `sys.prefix`, as tried here too (the editor shows the new version's text then)",
    ),
    Tool(
        "py-spy dump", "python sleeper.py &\nwhile test ! -e ready; do sleep .1; done\npy-spy dump --pid $! | grep -o -e 'wait (.*)' -e '<module> (.*)'\nkill $!",
        kind="Debuggers and profilers", needs=("py-spy",), pip=False, index=True,
        files={"sleeper.py": "import pathlib, threading\npathlib.Path('ready').touch()\nthreading.Event().wait(60)\n"},
    ),
    Tool(
        "pdb", "printf 'b main.py:3\\nc\\np VALUE\\nq\\n' | python -m pdb main.py", kind="Debuggers and profilers",
        shows=("(Pdb) '2.0'",), needs=("demo",), pip=False, files=MAIN, version="python --version",
    ),
    Tool(
        "cProfile", "python -m cProfile -o found main.py\npython -c 'import pstats; print(*[key[0] for key in pstats.Stats(\"found\").stats if \"demo\" in key[0]])'", kind="Debuggers and profilers",
        needs=("demo",), pip=False, files=MAIN, version="python --version",
    ),
    Tool(
        "python -X importtime", "python -X importtime -c 'import demo' 2>&1 | grep -o -e ' demo$' -e ' _siteswap$'", kind="Debuggers and profilers",
        shows=(" demo", " _siteswap"), needs=("demo",), pip=False, version="python --version",
        differs="one module more at the start, `_siteswap`, which ties the process to its generation",
    ),
)  # fmt: skip


def read_record() -> Seen:
    """What was seen at full length."""
    found: Seen = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


MORE = """
# Tools

What other tools do with an environment, beside the same in a plain venv, as above; `siteswap exec -- CMD` is `CMD` in
the plain venv. The default run tries {samples} of these lines on one interpreter, a run at full length all of them on all
interpreters. What was seen is in `tests/compatibility.json` (`SITESWAP_STRESS=1 SITESWAP_RECORD=1 pytest
tests/test_tools.py` writes it), and the columns "Python" and "version" are made of that: a Python that is not there has
not been tried. "Not in a plain venv either": the tool does not go together with that Python, and was seen to fail without
siteswap. A tool that stands "beside" is installed elsewhere, on the newest Python, as by `uv tool install`; pdm with
`hishel<1` and `unearth<0.18`, for the newest of these did not go together, in a plain venv neither; what it and pipenv run
in the environment is code for 3.10 and newer.

VS Code's extension is not run here: asked is what it asks, of `pyvenv.cfg` and of the interpreter. pyright is the wheel,
which fetches the program itself with the machine's node; basedpyright brings both along. For debugpy a small client says
what an editor says, and names modules by their paths in the environment (`ENV/lib/pythonX.Y/site-packages/…`).

{tables}"""

_COLUMNS = "| tool | version | what was run | Python | what happens | where it differs from a plain venv |\n"


def _row(tool: Tool, seen: Mapping[str, Mapping[str, str]]) -> str:
    _, name, typed, outcome, differs, _ = re.split(r"(?<!\\)\|", tool.row)
    typed = typed.replace(" >log 2>&1`", "`").replace(" >log`", "`")
    worked = sorted((on for on, what in seen.items() if what["result"] == AS_EXPECTED), key=_age)
    failed = [f"{_called(on)}: {what['result']}" for on, what in seen.items() if on not in worked]
    versions = list(dict.fromkeys(seen[on]["version"] for on in worked))
    where = " beside" if tool.beside else ""
    shown = " to ".join(dict.fromkeys([*versions[:1], *versions[-1:]]))
    ran = ", ".join([_called(on) for on in worked] + failed)
    return f"|{name}| {shown}{where} |{typed}| {ran} |{outcome}|{differs}|"


def _age(name: str) -> tuple[bool, int]:
    return (name == "system", 0 if name == "system" else int(name[2:]))


def _called(name: str) -> str:
    return "Debian's 3.11" if name == "system" else name


def page() -> str:
    """docs/compatibility.md: habits, then tools."""
    record = read_record()
    tables = [
        f"## {kind}\n\n{_COLUMNS}|---|---|---|---|---|---|\n"
        + "".join(_row(tool, record.get(tool.name, {})) + "\n" for tool in TOOLS if tool.kind == kind)
        for kind in dict.fromkeys(tool.kind for tool in TOOLS)
    ]
    return habits.page(MORE.format(samples=sum(tool.sample for tool in TOOLS), tables="\n".join(tables)))


if __name__ == "__main__":
    print(page(), end="")
