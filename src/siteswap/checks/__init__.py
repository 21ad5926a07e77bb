"""The checks that a candidate must pass, one kind a module.

The static ones read files of a generation and return findings; `imports`,
`suites` and `commands` run what is in it, confined. None of them knows the
base: what a finding means is decided in `trial` and `verdict`.
"""
