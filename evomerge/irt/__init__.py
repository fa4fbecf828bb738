"""Item response theory: calibrated items, cheap estimates of a score, and honest errors. Pure: arrays in, values out.

Only `table_files`, `bank_files` and `replay` touch the disk; everything else gets arrays and, where chance is needed,
a generator.
"""
