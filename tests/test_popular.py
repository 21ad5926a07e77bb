"""What everybody uses can be installed with the checks on: a false alarm here would be one for many.

A few are tried by default; SITESWAP_STRESS=1 tries all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import INTERPRETERS, STRESS, Siteswap
from popular import POPULAR, REFUSED, TOLD

pytestmark = [
    pytest.mark.index,
    pytest.mark.skipif("3.11" not in INTERPRETERS, reason="the list is one for Python 3.11"),
]

BY_DEFAULT = ("urllib3", "setuptools", "requests", "certifi", "charset-normalizer", "idna")
"""The first of the list that are small."""


@pytest.mark.parametrize("name", POPULAR if STRESS else BY_DEFAULT)
def test_nothing_stands_in_the_way(name: str, tmp_path: Path, siteswap: Siteswap) -> None:
    """The newest release goes into an empty environment, and only what is known of it is told."""
    env = tmp_path / "env"
    siteswap("create", env, "--python", INTERPRETERS["3.11"]).ok()
    ran = siteswap("install", "-e", env, name)
    if name in REFUSED:
        assert ran.status == 1, f"no longer so: {REFUSED[name]}"
        assert "the checks found 1 thing wrong; nothing was changed" in ran.err
        return
    lines = [line.removeprefix("siteswap: note: ") for line in ran.ok().err.splitlines()]
    told = {line.partition(" ")[0] for line in lines}
    assert told <= TOLD.keys(), "something that is not known yet is told"
    assert name in told or name not in TOLD, f"no longer so: {TOLD[name]}"


def test_the_exceptions_are_written_well() -> None:
    """What is said about refusals and the short run is about names of the list."""
    assert set(POPULAR) >= {*REFUSED, *BY_DEFAULT}
    assert not REFUSED.keys() & TOLD.keys()
