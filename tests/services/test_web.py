"""gunicorn, uvicorn, uWSGI: nothing changes at an install, everything at a reload, and no request is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import STRESS
from services.serving import Load, Place, Server, ask, children, free_port, recipe, until, versions

pytestmark = pytest.mark.index

UPGRADES = 30 if STRESS else 10
BASE = Path(sys.executable).resolve()


def gunicorn(place: Place, port: int, *options: str) -> list[str | Path]:
    """The line that starts it."""
    line: list[str | Path] = [place.env / "bin/gunicorn", *options, "-w", "2", "-b", f"127.0.0.1:{port}"]
    return [*line, "--pid", place.root / "pid", "shop.web:wsgi"]


def types(place: Place, name: str) -> None:
    """Run a block of the document as a shell does."""
    line = recipe(name).replace("/srv/shop", str(place.root))
    done = subprocess.run(["sh", "-ec", line], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def all_answer(port: int, version: int, server: Server) -> None:
    until(lambda: versions(port) == {str(version)}, server.said, 30)


def test_gunicorn_ten_upgrades_without_a_failed_request(place: Place) -> None:
    """HUP and USR2 in turn, with the recipe's configuration."""
    place.install("--no-check", "gunicorn", "shop==1")
    config = place.write("gunicorn.conf.py", recipe("gunicorn.conf.py"))
    port = free_port()
    with Server(place, gunicorn(place, port, "-c", str(config)), port) as server:
        master = server.process.pid
        try:
            for version in range(2, UPGRADES + 2):
                place.release(version)
                with Load(port) as load:
                    assert versions(port, 4) == {str(version - 1)}, "an install reached a running server"
                    if version % 2:
                        types(place, "gunicorn HUP")
                    else:
                        types(place, "gunicorn USR2")
                    all_answer(port, version, server)
                load.good()
                # The name goes over to the second master a moment after the first is gone.
                until(lambda: (place.root / "pid").exists() and not (place.root / "pid.2").exists())
                assert load.answers[str(version)]
            assert master != int((place.root / "pid").read_text())
            assert ask(port)["prefix"] == place.current()
        finally:
            os.kill(int((place.root / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("preload", [False, True])
def test_gunicorn_as_it_comes_stays_with_its_master(place: Place, preload: bool) -> None:
    """HUP, and workers that are replaced, run what the master was started with; with --preload always."""
    place.install("--no-check", "gunicorn", "shop==1")
    config = place.write("gunicorn.conf.py", recipe("gunicorn.conf.py") if preload else "")
    port = free_port()
    options = ["--preload"] if preload else []
    with Server(place, gunicorn(place, port, "-c", str(config), *options), port) as server:
        place.release(2)
        before = set(children(server.process.pid))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: not before & set(children(server.process.pid)), server.said)
        os.kill(children(server.process.pid)[0], signal.SIGKILL)
        until(lambda: len(children(server.process.pid)) == 2, server.said)
        assert versions(port) == {"1"}
        if preload:
            assert "stays in its generation, because of: shop (1 -> 2)" in server.said()


def test_without_a_pin_an_install_reaches_running_servers(place: Place) -> None:
    """The same server and packages, by a PYTHONPATH: were its answers not mixed, nothing was shown."""
    place.install("--no-check", "gunicorn", "shop==1")
    library = next((place.env / "lib").glob("python*/site-packages"))
    port = free_port()
    line = [BASE, "-S", "-m", "gunicorn", *gunicorn(place, port)[1:]]
    variables = {"PYTHONPATH": str(library)}
    with Server(place, line, port, env=variables):
        with Load(port) as load:
            place.release(2)
        assert load.mixed
        os.kill(int((place.root / "pid").read_text()), signal.SIGTERM)


def uvicorn(place: Place, port: int, *options: str | Path) -> list[str | Path]:
    line = [place.env / "bin/uvicorn", "--port", str(port), "--app-dir", place.root, *options]
    return [*line, "--no-access-log", "door:app"]


def test_uvicorn_workers(place: Place) -> None:
    """HUP replaces the workers one by one; the door takes each on to what is current."""
    place.install("--no-check", "uvicorn", "shop==1")
    place.write("door.py", recipe("door.py"))
    port = free_port()
    with Server(place, uvicorn(place, port, "--workers", "2"), port) as server:
        for version in (2, 3):
            place.release(version)
            with Load(port) as load:
                assert versions(port, 6) == {str(version - 1)}
                server.process.send_signal(signal.SIGHUP)
                all_answer(port, version, server)
            load.good()
        place.release(4)
        workers = [pid for pid in children(server.process.pid) if b"spawn_main" in _words(pid)]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: versions(port, 30) == {"3", "4"}, server.said)


def test_uvicorn_reload(place: Place) -> None:
    """An install alone is no reason to reload; touching the door is."""
    place.install("--no-check", "uvicorn", "shop==1")
    source = place.root / "src"
    source.mkdir()
    door = place.write("src/door.py", recipe("door.py"))
    port = free_port()
    line = uvicorn(place, port, "--reload", "--reload-dir", source, "--app-dir", source)
    with Server(place, line, port) as server:
        place.release(2)
        assert versions(port) == {"1"}
        door.touch()
        all_answer(port, 2, server)


def test_uvicorn_without_the_door_stays_with_its_parent(place: Place) -> None:
    """Its workers are started by multiprocessing, which keeps them in the parent's generation."""
    place.install("--no-check", "uvicorn", "shop==1")
    place.write("door.py", "from shop.web import asgi as app\n")
    port = free_port()
    with Server(place, uvicorn(place, port, "--workers", "2"), port) as server:
        place.release(2)
        before = set(children(server.process.pid))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(before & set(children(server.process.pid))) < 2, server.said)
        until(lambda: "Waiting for child process" in server.said(), server.said)
        assert versions(port) == {"1"}


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def try_uwsgi(place: Place, line: Sequence[str | Path], port: int) -> None:
    """Two versions; HUP makes it execute itself again."""
    with Server(place, [*line, "--disable-logging", "--http-socket", f"127.0.0.1:{port}"], port) as server:
        assert place.users() == {int(Path(place.current()).name)}
        for version in (2, 3):
            place.release(version)
            with Load(port) as load:
                assert versions(port, 6) == {str(version - 1)}
                server.process.send_signal(signal.SIGHUP)
                all_answer(port, version, server)
            load.good()


def test_pyuwsgi(place: Place) -> None:
    """uWSGI as a module of the environment: it runs in the environment's python."""
    place.install("--no-check", "pyuwsgi", "shop==1")
    place.write("pyuwsgi.ini", recipe("pyuwsgi.ini"))
    try_uwsgi(place, [place.env / "bin/uwsgi", "--ini", place.root / "pyuwsgi.ini"], free_port())


@pytest.fixture(scope="module")
def uwsgi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of uWSGI, built for the interpreter that runs the tests."""
    wheels = tmp_path_factory.mktemp("uwsgi")
    subprocess.run([BASE, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, "uwsgi"], check=True)
    [wheel] = wheels.glob("uwsgi-*.whl")
    return wheel


@pytest.mark.stress
@pytest.mark.skipif(not STRESS, reason="builds uWSGI")
@pytest.mark.parametrize("lazy", [False, True])
def test_uwsgi_embeds_the_environment(place: Place, uwsgi: Path, lazy: bool) -> None:
    """uWSGI of its own, `home` leading to ENV: no launcher runs, and the runtime pins."""
    own = place.root / "own"
    subprocess.run([BASE, "-m", "venv", own], check=True)
    subprocess.run([own / "bin/pip", "install", "-q", uwsgi], check=True)
    place.install("--no-check", "shop==1")
    place.write("uwsgi.ini", recipe("uwsgi.ini"))
    options = ["--lazy-apps"] if lazy else []
    try_uwsgi(place, [own / "bin/uwsgi", "--ini", place.root / "uwsgi.ini", *options], free_port())


@pytest.mark.stress
@pytest.mark.skipif(not STRESS, reason="builds uWSGI")
def test_uwsgi_that_is_built_into_the_environment(place: Place, uwsgi: Path) -> None:
    """It executes its generation's own copy again, so HUP stays where it is."""
    place.install("--no-check", str(uwsgi), "shop==1")
    port = free_port()
    line: list[str | Path] = [place.env / "bin/uwsgi", "--module", "shop.web:wsgi", "--master", "--need-app"]
    with Server(place, [*line, "--http-socket", f"127.0.0.1:{port}"], port) as server:
        place.release(2)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "gracefully (RE)spawned" in server.said(), server.said)
        assert versions(port) == {"1"}
        assert place.users() == {2}
