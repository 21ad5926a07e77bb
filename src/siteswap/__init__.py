"""siteswap: Python packages change all at once.

An environment is a sequence of immutable generations; one symbolic link names
the live one; a commit is one rename of that link. See ARCHITECTURE.md.
"""

__version__ = "0.1.0"
