"""Compile the sources that stdin names (ended by NULs); a line of JSON for each that does not compile.

Run in the interpreter that is to use the byte-code, as `python -I -c THIS WRITE`, where WRITE is "write" to
leave byte-code where that interpreter looks for it, or "look". Works on Python 3.9 and newer.
"""

import concurrent.futures
import functools
import json
import os
import py_compile
import sys


def main():
    paths = sys.stdin.read().split("\0")[:-1]
    work = functools.partial(problem, sys.argv[1] == "write")
    workers = min(os.cpu_count() or 1, 1 + len(paths) // 50)
    try:
        with concurrent.futures.ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(work, paths, chunksize=20)) if workers > 1 else list(map(work, paths))
    except OSError:
        found = list(map(work, paths))  # no semaphores here: one after the other does as well
    for path, text in zip(paths, found):
        if text is not None:
            print(json.dumps({"path": path, "problem": text}))
    print(json.dumps({"end": True}))


def problem(write, path):
    """Why a source does not compile, or None."""
    try:
        if write:
            py_compile.compile(path, doraise=True)
        else:
            with open(path, "rb") as stream:
                compile(stream.read(), path, "exec", dont_inherit=True)
    except py_compile.PyCompileError as error:
        return one_line(error.exc_value)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return one_line(error)
    except OSError:
        return None  # what cannot be written stays without byte-code
    return None


def one_line(error):
    where = " (line %s)" % error.lineno if isinstance(error, SyntaxError) and error.lineno else ""
    return type(error).__name__ + ": " + str(getattr(error, "msg", error)) + where


if __name__ == "__main__":
    main()
