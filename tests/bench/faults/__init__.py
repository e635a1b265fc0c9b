"""Tests of what the suite of faults computes; it runs whole by `python -m bench faults`."""
