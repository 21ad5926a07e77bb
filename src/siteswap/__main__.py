"""The program `siteswap`, and `python -m siteswap`.

The working directory, PYTHONPATH and its like, and what the user's own site
directory starts are no part of siteswap: what it imports comes from where it is
installed [I10]. So this module and the package's own import nothing that could
come from elsewhere, and where something would, it starts over, isolated.
"""

import os
import sys

HARMLESS = frozenset({
    "PYTHONCOERCECLOCALE", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED",
    "PYTHONIOENCODING", "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", "PYTHONUTF8",
})  # fmt: skip
"""Variables that Python looks at, and that lead nothing into it."""


def run() -> int:
    """The command line, in an interpreter that imports from its own installation only."""
    if not sys.flags.isolated:
        if _is_led_astray():
            flags = ["-I", *(["-B"] if sys.flags.dont_write_bytecode else [])]
            os.execv(sys.executable, [sys.executable, *flags, __file__, *sys.argv[1:]])
        if not sys.flags.safe_path:
            del sys.path[0]  # the working directory, or that of the program
    home = os.path.dirname(os.path.dirname(__file__))
    if home not in sys.path:
        sys.path.append(home)  # installed where an isolated interpreter does not look
    try:
        from siteswap.cli import main
    except ModuleNotFoundError as error:
        print(f"siteswap: {error} in its own installation, {home}", file=sys.stderr)
        print("  → install siteswap with what it needs, not by PYTHONPATH: pipx, uv tool", file=sys.stderr)
        return 5
    return main()


def _is_led_astray() -> bool:
    """Whether variables or the user's own site directory may have led something into this interpreter."""
    site = sys.modules.get("site")
    if getattr(site, "ENABLE_USER_SITE", False) and getattr(site, "USER_SITE", None) in sys.path:
        return True
    # Those that begin with PYTHON_ lead nothing in; images of containers set some to say what is in them.
    return any(
        name.startswith("PYTHON") and not name.startswith("PYTHON_") and name not in HARMLESS
        for name in os.environ
    )


if __name__ == "__main__":
    sys.exit(run())
