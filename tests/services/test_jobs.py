"""celery, joblib, cron, systemd and Jupyter: who is in which generation, and what moves it on."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.serving import Load, Place, Server, ask, free_port, recipe, until, versions

pytestmark = pytest.mark.index


def seen(answer: dict[str, Any]) -> str:
    """The one version that an answer is of."""
    assert len(set(answer["versions"])) == 1, answer
    return str(answer["versions"][0])


# --- celery -----------------------------------------------------------------------------------------------

_TASKS = """\
from celery import Celery

app = Celery("tasks", broker="filesystem://", backend="file:///srv/shop/results")
app.conf.broker_transport_options = {
    "data_folder_in": "/srv/shop/queue",
    "data_folder_out": "/srv/shop/queue",
    "control_folder": "/srv/shop/control",
}

@app.task
def look():
    import shop
    return shop.seen()
"""

_DELAY = "import json, tasks; print(json.dumps(tasks.look.delay().get(timeout=60)))"


def test_celery_prefork(place: Place) -> None:
    """Processes of the pool that are replaced stay in their parent's generation; a restart moves on."""
    place.install("--no-check", "celery", "shop==1")
    for name in ("results", "queue", "control"):
        (place.root / name).mkdir()
    place.write("tasks.py", _TASKS)

    def look() -> dict[str, Any]:
        done = subprocess.run(
            [place.env / "bin/python", "-c", _DELAY], cwd=place.root, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    line = place.env / "bin/celery", "-A", "tasks", "worker", "-c", "1", "--max-tasks-per-child", "1"
    with Server(place, [*line, "--without-gossip", "--without-mingle"]) as worker:
        first = look()
        place.release(2)
        second = look()
        assert (seen(first), seen(second)) == ("1", "1"), worker.said()
        assert first["pid"] != second["pid"], "it was the same process: nothing was tried"
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(60)
    with Server(place, [*line, "--without-gossip", "--without-mingle"]):
        assert seen(look()) == "2"


# --- joblib and concurrent.futures ------------------------------------------------------------------------

_POOLS = """\
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from joblib import Parallel, delayed

def look(_):
    import shop
    return shop.seen()

if __name__ == "__main__":
    import json
    print("ready", flush=True)
    sys.stdin.readline()
    found = Parallel(n_jobs=2)(delayed(look)(n) for n in range(4))
    for method in ("fork", "spawn", "forkserver"):
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
            found += pool.map(look, range(2))
    print(json.dumps(found))
"""


def test_pools_that_start_after_an_install(place: Place) -> None:
    """joblib's loky and concurrent.futures start their workers in the generation of who asks."""
    place.install("--no-check", "joblib", "shop==1")
    program = place.write("pools.py", _POOLS)
    with subprocess.Popen(
        [place.env / "bin/python", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        place.release(2)
        out, _ = parent.communicate("\n", timeout=120)
    answers = json.loads(out)
    assert len(answers) == 10
    assert {seen(answer) for answer in answers} == {"1"}


# --- cron -------------------------------------------------------------------------------------------------


def test_cron(place: Place) -> None:
    """The crontab's line with the shell and the variables that cron gives, before and after an install."""
    place.install("--no-check", "--no-index", "shop==1")
    [line] = recipe("crontab").splitlines()
    command = line.split(None, 5)[5].replace("/srv/shop", str(place.root))
    variables = {"HOME": "/", "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    for version in (1, 2):
        if version > 1:
            place.release(version)
        subprocess.run(["/bin/sh", "-c", command], cwd="/", env=variables, check=True, timeout=60)
        last = (place.root / "shop.log").read_text().splitlines()[-1]
        assert seen(json.loads(last)) == str(version)


# --- systemd ----------------------------------------------------------------------------------------------


_START = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Unit:
    """A service started as systemd starts it: its line, its socket as descriptor 3, hardly any variables."""

    def __init__(self, place: Place, service: Path) -> None:
        self._place = place
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(service)
        self._section = parser["Service"]

    @contextmanager
    def started(self, listening: socket.socket) -> Iterator[Server]:
        """Until READY=1 came; stopped with KillSignal, as `systemctl stop` does."""
        assert self._section["Type"] == "notify"
        notify = self._place.root / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            notify.unlink(missing_ok=True)
            ready.bind(str(notify))
            ready.settimeout(60)
            line = [sys.executable, "-Sc", _START, str(listening.fileno())]
            line += shlex.split(self._section["ExecStart"])
            variables = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": str(notify)}
            with Server(
                self._place, line, env=variables, inherit=False, pass_fds=[listening.fileno()]
            ) as server:
                while b"READY=1" not in ready.recv(4096):
                    pass
                yield server
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(60)

    def reload(self, server: Server) -> None:
        """What `systemctl reload` runs."""
        line = shlex.split(self._section["ExecReload"])
        subprocess.run([str(server.process.pid) if word == "$MAINPID" else word for word in line], check=True)


def test_systemd_unit(place: Place) -> None:
    """Reload and restart under load: connections wait in systemd's socket, none is lost."""
    place.install("--no-check", "gunicorn", "shop==1")
    place.write("gunicorn.conf.py", recipe("gunicorn.conf.py"))
    service = place.write("shop.service", recipe("shop.service"))
    place.write("shop.socket", recipe("shop.socket"))
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", service, place.root / "shop.socket"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert "shop." not in done.stderr, done.stderr
    unit = Unit(place, service)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = listening.getsockname()[1]
        with ExitStack() as loading:
            load = loading.enter_context(Load(port))
            with unit.started(listening) as server:
                place.release(2)
                assert versions(port, 4) == {"1"}
                unit.reload(server)
                until(lambda: versions(port) == {"2"}, server.said)
                place.release(3)
                assert versions(port, 4) == {"2"}
            with unit.started(listening):
                until(lambda: versions(port) == {"3"}, server.said)
                assert ask(port)["prefix"] == place.current()
                loading.close()
        load.good()


# --- Jupyter ----------------------------------------------------------------------------------------------

_CELL = """\
import sys, time
from jupyter_client import BlockingKernelClient
client = BlockingKernelClient(connection_file=sys.argv[1])
client.load_connection_file()
client.start_channels()
for _ in range(60):  # a kernel that is just starting counts as dead
    try:
        client.wait_for_ready(timeout=60)
        break
    except RuntimeError:
        time.sleep(0.5)
said = []
def hook(message):
    if message["msg_type"] in ("stream", "error"):
        said.append(message["content"].get("text") or "\\n".join(message["content"]["traceback"]))
client.execute_interactive("import json, shop; print(json.dumps(shop.seen()))", output_hook=hook, timeout=60)
print("".join(said))
"""


def test_jupyter_server_and_its_kernels(place: Place) -> None:
    """The server and running kernels stay; the next kernel, and one that is restarted, is in the new one."""
    place.install("--no-check", "jupyter_server", "ipykernel", "shop==1")
    cell = place.write("cell.py", _CELL)
    port = free_port()
    variables = {
        "JUPYTER_RUNTIME_DIR": str(place.root / "runtime"),
        "JUPYTER_DATA_DIR": str(place.root / "data"),
        "JUPYTER_CONFIG_DIR": str(place.root / "config"),
        "IPYTHONDIR": str(place.root / "ipython"),
    }

    def call(path: str, method: str = "GET") -> Any:
        url = f"http://127.0.0.1:{port}/api/{path}"
        request = urllib.request.Request(url, method=method, data=b"{}" if method == "POST" else None)
        request.add_header("Authorization", "token secret")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def up() -> bool:
        try:
            return bool(call("status"))
        except OSError:
            return False

    def look(kernel: str) -> str:
        done = subprocess.run(
            [place.env / "bin/python", cell, place.root / f"runtime/kernel-{kernel}.json"],
            env=os.environ | variables, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return seen(json.loads(done.stdout))

    line: list[str | Path] = [
        place.env / "bin/jupyter-server",
        "--no-browser",
        "--allow-root",
        "--port",
        str(port),
    ]
    line += ["--IdentityProvider.token=secret", f"--ServerApp.root_dir={place.root}"]
    with Server(place, line, env=variables) as server:
        until(up, server.said)
        try:
            first = call("kernels", "POST")["id"]
            assert look(first) == "1"
            generation = place.users()
            place.release(2)
            assert look(first) == "1"
            second = call("kernels", "POST")["id"]
            assert look(second) == "2"
            assert place.users() == generation | {max(generation) + 1}
            call(f"kernels/{first}/restart", "POST")
            assert look(first) == "2"
        finally:
            server.process.send_signal(signal.SIGTERM)  # ends its kernels, which are in sessions of their own
            until(lambda: server.process.poll() is not None, server.said)
