"""Fixtures of the recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Siteswap
from services.serving import Place, shop


@pytest.fixture
def place(tmp_path: Path, siteswap: Siteswap, wheels: Path) -> Place:
    """An empty environment, and the first version of the application ready to be installed in it."""
    place = Place(tmp_path, wheels, siteswap)
    siteswap("create", place.env).ok()
    shop(wheels, 1)
    return place
