"""Benchmarks, one module each: `python -m benchmarks.<name>`. Each prints what it measures, and on what."""
