"""How answers are obtained: tasks and items, lm-eval, the resident scorer, synthetic worlds."""
