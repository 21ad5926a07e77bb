"""Projects' own test suites in an environment and in a plain venv: docs/upstream-suites.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import upstream
from conftest import INTERPRETERS, STRESS


@pytest.mark.index
@pytest.mark.stress
@pytest.mark.skipif(not STRESS or "3.12" not in INTERPRETERS, reason="runs for hours: SITESWAP_STRESS=1")
@pytest.mark.parametrize("name", sorted(upstream.SUITES))
def test_equal_results(name: str, tmp_path: Path) -> None:
    """Every test of the suite ends as in a plain venv, and most of them well."""
    result = upstream.compare(name, INTERPRETERS["3.12"], tmp_path)
    print(f"\n{name}, {result}")
    passed = sum(number for (_, how), number in result.ours.items() if how == "passed")
    assert passed > result.ours.total() / 2
    assert not result.differences, str(result)


def test_what_differs_is_told(tmp_path: Path) -> None:
    """A test that ends otherwise, or is there on one side only, is a difference; not a path or address."""
    report = tmp_path / "report.xml"
    case = '<testcase classname="m" name="{}">{}</testcase>'

    def read(prefix: str, *cases: tuple[str, str]) -> upstream.Outcomes:
        inner = "".join(case.format(name, inside) for name, inside in cases)
        report.write_text(f"<testsuites><testsuite>{inner}</testsuite></testsuites>")
        return upstream.read(report, {prefix: "PREFIX"})

    skip, xfail = '<skipped type="pytest.skip"/>', '<skipped type="pytest.xfail"/>'
    common = (("a", ""), ("s", skip), ("x", xfail), ("f", '<failure message="no"/>'))
    plain = read("/p/venv", *common, ("t[/p/venv/lib/x]", ""), ("u[&lt;O at 0x7f00aa001122&gt;]", ""))
    ours = read(
        "/p/env",
        *common,
        ("t[/p/env/.siteswap/generations/2/lib/x]", ""),
        ("u[&lt;O at 0x7f11bb223344&gt;]", ""),
    )
    assert Counter(how for _, how in plain) == {"passed": 3, "skipped": 1, "xfailed": 1, "failed": 1}
    assert upstream.Compared("", plain, ours, (0, 0)).differences == []
    worse = read("/p/env", *common[1:], ("a", '<failure message="no"/>'), ("more", ""))
    told = upstream.Compared("", plain, worse, (0, 0)).differences
    assert "plain venv only: m::a: passed (×1)" in told
    assert "environment only: m::a: failed (×1)" in told
    assert "environment only: m::more: passed (×1)" in told
