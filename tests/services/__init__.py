"""Recipes for programs that run for long, each run for real: docs/services.md."""
