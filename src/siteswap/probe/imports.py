"""Import modules and load entry points, telling each step before it is taken, so that a crash is known.

Run in the interpreter that is to be tried, as `python -c THIS TASKS`, where TASKS is JSON: a list of
[module, attribute or null]. Prints one line of JSON an event to what was stdout at the start; what the
modules print goes to stderr. Works on Python 3.9 and newer.
"""

import importlib
import json
import os
import sys
import traceback
import warnings


def main():
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tasks = json.loads(sys.argv.pop(1))
    dumps = json.dumps  # modules replace such things
    if sys.path and sys.path[0] == "":
        del sys.path[0]  # a scratch directory

    def tell(**event):
        report.write(dumps(event) + "\n")
        report.flush()

    def showwarning(message, category, filename, lineno, file=None, line=None):
        tell(warned=category.__name__ + ": " + " ".join(str(message).split()))
        usual(message, category, filename, lineno, file, line)

    usual, warnings.showwarning = warnings.showwarning, showwarning
    for number, (module, attribute) in enumerate(tasks):
        tell(begin=number)
        try:
            found = importlib.import_module(module)
            for name in attribute.split(".") if attribute else ():
                found = getattr(found, name)
        except BaseException as error:
            tell(failed=number, error=line(error), trace=trace(error), missing=missing(error))
    tell(loaded=sorted(loaded()))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # a module put something else in its place
    os._exit(0)  # whatever threads and exit functions the modules have started


def line(error):
    text = " ".join(str(error).split())
    return type(error).__name__ + (": " + text if text else "")


def trace(error):
    inner = error.__traceback__
    while inner is not None and ours(inner.tb_frame.f_code.co_filename):
        inner = inner.tb_next
    return "".join(traceback.format_exception(type(error), error, inner))


def ours(file):
    return file in ("<string>", importlib.__file__) or file.startswith("<frozen importlib")


def missing(error):
    """The module that was not found, if that is where it began."""
    found, seen = None, set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ModuleNotFoundError) and error.name:
            found = error.name
        # What is raised while an ImportError is handled is another defect, unless it passes that one on.
        passed_on = isinstance(error, (ImportError, SystemExit))
        error = error.__cause__ or (error.__context__ if passed_on else None)
    return found


def loaded():
    """Names of what is loaded from below the prefix: top-level, or first below a namespace package."""
    for name, module in list(sys.modules.items()):
        parent = sys.modules.get(name.rpartition(".")[0])
        if "." in name and getattr(parent, "__file__", None) is not None:
            continue
        file = getattr(module, "__file__", None)
        inside = isinstance(file, str) and file.startswith(sys.prefix + os.sep)
        if inside and not name.startswith("_siteswap"):
            yield name


main()
