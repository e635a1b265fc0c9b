"""Benchmarks, each printed beside a floor that is measured in the same run."""
