"""Benchmarks that write records. Installed as `clever_fast.benchmarks`."""
