"""The composition root: search, check, merge, score, calibrate and submit, from files and options to results.

The only room that knows all the others; the command line and `import evomerge` both call it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.commands._bank_sources import calibrate
    from evomerge.commands._batch_systems import rayjob_manifest, slurm_command
    from evomerge.commands._check import CheckReport, check
    from evomerge.commands._model_commands import merge_recipe, replay, score
    from evomerge.commands._remeasure import remeasure
    from evomerge.commands._run_search import resume, run_of_file, search
    from evomerge.commands._search_options import Reporter, ResumeOptions, SearchOptions, SubmitOptions
    from evomerge.commands._search_progress import progress_printer
    from evomerge.commands._submit import STOP_SECONDS, connect, ending, exit_status, job_request, search_options, send

__all__ = [
    "STOP_SECONDS",
    "CheckReport",
    "Reporter",
    "ResumeOptions",
    "SearchOptions",
    "SubmitOptions",
    "calibrate",
    "check",
    "connect",
    "ending",
    "exit_status",
    "job_request",
    "merge_recipe",
    "progress_printer",
    "rayjob_manifest",
    "remeasure",
    "replay",
    "resume",
    "run_of_file",
    "score",
    "search",
    "search_options",
    "send",
    "slurm_command",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
