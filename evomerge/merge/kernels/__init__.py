"""Merge methods over cache-sized blocks of memory, by numba where it is installed and by torch elsewhere.

`_dispatch` chooses; rankings and thresholds that do not depend on the candidate are computed once.
"""
