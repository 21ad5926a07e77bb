"""siteswap: Python packages change all at once.

An environment is a sequence of immutable generations; one symbolic link names
the live one; a commit is one rename of that link. See ARCHITECTURE.md.

The library's face is `Environment` and `Request`; both are imported when they
are first asked for, so that a command imports only what it needs. Nothing of the
standard library is imported here: see __main__.py.
"""

from siteswap.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from siteswap.environment import Environment
    from siteswap.requirements import Request

__all__ = ["Environment", "Request", "__version__"]


def __getattr__(name: str) -> "Any":
    if name == "Environment":
        from siteswap.environment import Environment

        return Environment
    if name == "Request":
        from siteswap.requirements import Request

        return Request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
