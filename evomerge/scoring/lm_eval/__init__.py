"""The adapter of lm-eval: tasks, documents, prompts, filters and metrics, through its public calls.

`_adapter` is the only file that imports lm_eval.
"""
