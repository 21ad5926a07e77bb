"""siteswap against uv and pip, as whole processes: `python -m benchmarks` (README.md)."""
