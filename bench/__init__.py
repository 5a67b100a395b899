"""Benchmarks: `run` (`make bench`) is the pipeline beside Polars and Bytewax, `backends` is it over each store."""
