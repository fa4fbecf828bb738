"""Metrics beside lm-eval's tasks: perplexity, phrases, lengths, sizes, a Python function, an LLM judge.

The registry has one row per kind.
"""
