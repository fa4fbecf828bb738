"""Batched inference: shared prefixes are computed once, and answers equal those of lm-eval's own loop.

Where packing or caching would change an answer, a named fallback takes the plain path.
"""
