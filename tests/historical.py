"""Upgrades that broke an import although every declared dependency rule allowed them: data, no tests.

Each is a pair of real packages from the package index. With `before` installed, the import of `broken` works.
With `upgrade` on top, each of its lines in the place of the line of `before` for the same package, resolvers
find a solution and `uv pip check` has nothing to say, but the import fails. Each has been tried with uv on
the Python it names and needs nothing but wheels. Before the upgrade, everything that is installed can be
imported and every command loaded; after it, nothing fails but `broken` and the commands of its package.

`before` pins all that is installed, so that what a new release of a bystander does cannot change the story.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Regression:
    """An upgrade of one package that broke the import of another."""

    name: str
    """What to call it, made of the two packages' names: the one that broke, then the one upgraded."""

    python: str
    """The Python that it is told for, as "3.11"."""

    before: tuple[str, ...]
    """The requirements asked for at first, the package that breaks foremost: exact pins, for everything."""

    upgrade: tuple[str, ...]
    """The requirements of the upgrade; each takes the place of the line of `before` for the same package."""

    broken: str
    """The module whose import works before and fails afterwards."""

    words: str
    """A regular expression found in the message of that failure, its exception's type not counted."""

    story: str
    """What happened, in a sentence."""


REGRESSIONS = (
    Regression(
        name="pandas-numpy",
        python="3.11",
        before=(
            "pandas==1.5.3",
            "numpy==1.26.4",
            "python-dateutil==2.9.0.post0",
            "pytz==2024.1",
            "six==1.16.0",
        ),
        upgrade=("numpy==2.0.2",),
        broken="pandas",
        words=r"numpy\.dtype size changed, may indicate binary incompatibility",
        story="pandas 1.5 is compiled against numpy 1 and allows any later one; numpy 2 has another layout.",
    ),
    Regression(
        name="h5py-numpy",
        python="3.12",
        before=("h5py==3.10.0", "numpy==1.26.4"),
        upgrade=("numpy==2.0.2",),
        broken="h5py",
        words=r"numpy\.dtype size changed, may indicate binary incompatibility",
        story="h5py 3.10 is compiled against numpy 1 and allows any later one; numpy 2 has another layout.",
    ),
    Regression(
        name="bottleneck-numpy",
        python="3.11",
        before=("bottleneck==1.3.7", "numpy==1.26.4"),
        upgrade=("numpy==2.0.2",),
        broken="bottleneck",
        words=r"numpy\.core\.multiarray failed to import",
        story="As with pandas, but what fails is numpy's own check of the version compiled against.",
    ),
    Regression(
        name="flask-werkzeug",
        python="3.11",
        before=(
            "flask==2.2.2",
            "werkzeug==2.2.3",
            "click==8.1.7",
            "itsdangerous==2.1.2",
            "jinja2==3.1.4",
            "markupsafe==2.1.5",
        ),
        upgrade=("werkzeug==3.0.0",),
        broken="flask",
        words=r"cannot import name 'url_quote' from 'werkzeug\.urls'",
        story="Werkzeug 3 dropped its URL functions; Flask 2.2 (Werkzeug>=2.2.2) imports one of them.",
    ),
    Regression(
        name="flask-login-werkzeug",
        python="3.12",
        before=(
            "flask-login==0.6.2",
            "flask==2.3.3",
            "werkzeug==2.3.8",
            "blinker==1.8.2",
            "click==8.1.7",
            "itsdangerous==2.1.2",
            "jinja2==3.1.4",
            "markupsafe==2.1.5",
        ),
        upgrade=("werkzeug==3.0.0",),
        broken="flask_login",
        words=r"cannot import name 'url_decode' from 'werkzeug\.urls'",
        story="Flask 2.3 was ready for Werkzeug 3; the Flask-Login of its day was not, and did not say so.",
    ),
    Regression(
        name="jinja2-markupsafe",
        python="3.9",
        before=("jinja2==2.11.3", "markupsafe==2.0.1"),
        upgrade=("markupsafe==2.1.0",),
        broken="jinja2",
        words=r"cannot import name 'soft_unicode' from 'markupsafe'",
        story="MarkupSafe 2.1 dropped soft_unicode, which Jinja2 2.11 (MarkupSafe>=0.23) imports.",
    ),
    Regression(
        name="flask-jinja2",
        python="3.10",
        before=(
            "flask==1.1.2",
            "jinja2==3.0.3",
            "click==8.0.4",
            "itsdangerous==2.0.1",
            "markupsafe==2.0.1",
            "werkzeug==1.0.1",
        ),
        upgrade=("jinja2==3.1.0",),
        broken="flask",
        words=r"cannot import name 'escape' from 'jinja2'",
        story="Jinja2 3.1 no longer has MarkupSafe's escape; Flask 1.1 (Jinja2>=2.10.1) takes it there.",
    ),
    Regression(
        name="flask-itsdangerous",
        python="3.9",
        before=(
            "flask==1.1.2",
            "itsdangerous==2.0.1",
            "click==8.0.4",
            "jinja2==3.0.3",
            "markupsafe==2.0.1",
            "werkzeug==1.0.1",
        ),
        upgrade=("itsdangerous==2.1.0",),
        broken="flask",
        words=r"cannot import name 'json' from 'itsdangerous'",
        story="ItsDangerous 2.1 dropped the json module that Flask 1.1 (itsdangerous>=0.24) took from it.",
    ),
    Regression(
        name="pyopenssl-cryptography",
        python="3.11",
        before=("pyopenssl==22.0.0", "cryptography==38.0.4", "cffi==1.17.1", "pycparser==2.22"),
        upgrade=("cryptography==39.0.0",),
        broken="OpenSSL",
        words=r"module 'lib' has no attribute 'OpenSSL_add_all_algorithms'",
        story="pyOpenSSL 22.0 (cryptography>=35.0) calls a binding that cryptography 39 removed.",
    ),
    Regression(
        name="requests-toolbelt-urllib3",
        python="3.12",
        before=(
            "requests-toolbelt==0.10.1",
            "requests==2.31.0",
            "urllib3==1.26.18",
            "certifi==2024.7.4",
            "charset-normalizer==3.3.2",
            "idna==3.7",
        ),
        upgrade=("urllib3==2.0.7",),
        broken="requests_toolbelt",
        words=r"cannot import name 'appengine' from 'urllib3\.contrib'",
        story="requests 2.31 allows urllib3 2; requests-toolbelt 0.10 imports a module that is gone there.",
    ),
    Regression(
        name="readability-lxml",
        python="3.11",
        before=("readability-lxml==0.8.1", "lxml==5.1.1", "chardet==5.2.0", "cssselect==1.2.0"),
        upgrade=("lxml==5.2.0",),
        broken="readability",
        words=r"lxml\.html\.clean module is now a separate project lxml_html_clean",
        story="lxml 5.2 moved lxml.html.clean to a distribution of its own, between two minor releases.",
    ),
    Regression(
        name="apscheduler-setuptools",
        python="3.13",
        before=(
            "apscheduler==3.10.1",
            "setuptools==80.9.0",
            "pytz==2024.1",
            "six==1.16.0",
            "tzlocal==5.2",
        ),
        upgrade=("setuptools==82.0.0",),
        broken="apscheduler",
        words=r"No module named 'pkg_resources'",
        story="setuptools 82 removed pkg_resources, for which APScheduler 3.10.1 asks for setuptools>=0.7.",
    ),
    Regression(
        name="pychromecast-protobuf",
        python="3.11",
        before=(
            "pychromecast==9.4.0",
            "protobuf==3.20.3",
            "casttube==0.2.1",
            "certifi==2024.7.4",
            "charset-normalizer==3.3.2",
            "idna==3.7",
            "ifaddr==0.2.0",
            "requests==2.31.0",
            "urllib3==1.26.18",
            "zeroconf==0.154.0",
        ),
        upgrade=("protobuf==4.21.12",),
        broken="pychromecast",
        words=r"Descriptors cannot not be created directly",
        story="protobuf 4 refuses modules that an old protoc generated, as PyChromecast 9 has them.",
    ),
    Regression(
        name="environs-marshmallow",
        python="3.13",
        before=(
            "environs==9.5.0",
            "marshmallow==3.26.1",
            "packaging==24.1",
            "python-dotenv[cli]==1.0.1",
            "click==8.1.7",
        ),
        upgrade=("marshmallow==4.0.0",),
        broken="environs",
        words=r"module 'marshmallow' has no attribute '__version_info__'",
        story="marshmallow 4 dropped the version number that environs 9.5 (marshmallow>=3.0.0) looks at.",
    ),
    Regression(
        name="pytest-rerunfailures-pytest",
        python="3.9",
        before=(
            "pytest-rerunfailures==9.0",
            "pytest==6.0.2",
            "attrs==23.2.0",
            "iniconfig==2.0.0",
            "more-itertools==10.3.0",
            "packaging==24.1",
            "pluggy==0.13.1",
            "py==1.11.0",
            "setuptools==68.0.0",
            "toml==0.10.2",
        ),
        upgrade=("pytest==6.1.0",),
        broken="pytest_rerunfailures",
        words=r"No module named '_pytest\.resultlog'",
        story="pytest 6.1 removed a private module that pytest-rerunfailures 9 (pytest>=5.0) imports.",
    ),
    Regression(
        name="pip-requirements-parser-packaging",
        python="3.11",
        before=("pip-requirements-parser==31.2.0", "packaging==21.3", "pyparsing==3.1.2"),
        upgrade=("packaging==22.0",),
        broken="pip_requirements_parser",
        words=r"cannot import name 'LegacyVersion' from 'packaging\.version'",
        story="packaging 22 dropped LegacyVersion; pip-requirements-parser asks for any packaging at all.",
    ),
    Regression(
        name="inflect-pydantic",
        python="3.11",
        before=("inflect==6.0.2", "pydantic==1.10.12", "typing-extensions==4.12.2"),
        upgrade=("pydantic==2.0",),
        broken="inflect",
        words=r"cannot import name 'Annotated' from 'pydantic\.typing'",
        story="inflect 6.0 (pydantic>=1.9.1) imports from a module that pydantic 2 rewrote.",
    ),
)
"""All of them; those with numpy are the big ones, 70 to 125 MB installed, the others 1 to 20 MB."""
