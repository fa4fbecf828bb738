"""The verbs of few items: calibrate, estimate."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from evomerge.cli._verb import DONE, verb
from evomerge.errors import InputError


def add_calibrate(verbs: Any) -> None:
    """Add the verb `calibrate`."""
    parser = verb(
        verbs,
        "calibrate",
        "fit IRT item parameters to the responses of many models, to estimate scores from few items",
        """
evomerge calibrate responses.npz --out bank.json
evomerge calibrate responses.csv --out bank.parquet --dims 2
evomerge calibrate runs/quickstart --task add --out add.json            what a search's models answered
evomerge calibrate lm_eval_logs/ --task gsm8k --metric exact_match --filter strict-match --out gsm8k.json
""",
        _run_calibrate,
    )
    parser.add_argument(
        "responses",
        metavar="RESPONSES",
        nargs="+",
        help="answers, models by items (.npz, .csv, .parquet); or run folders; or lm-eval's sample logs or folders of "
        "them; or item parameters A, B, items (.npz)",
    )
    parser.add_argument("--task", metavar="T", help="of run folders (objective) or logs that hold several")
    parser.add_argument("--metric", metavar="M", help="of sample logs: acc, exact_match, ...")
    parser.add_argument("--filter", metavar="F", help="of sample logs, where the task has several")
    parser.add_argument("--out", metavar="BANK", required=True, help="item bank to write (.json, .parquet)")
    parser.add_argument("--dims", default="auto", metavar="auto|N", help="dimensions of ability; default: auto")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the choice of dimensions; default: 0")
    parser.add_argument("--json", action="store_true", help="print the provenance of the item bank as JSON")


def _run_calibrate(arguments: argparse.Namespace) -> int:
    from evomerge.commands import calibrate

    dims = arguments.dims if arguments.dims == "auto" else _whole(arguments.dims, "--dims")
    bank = calibrate(
        arguments.responses,
        arguments.out,
        dims=dims,
        seed=arguments.seed,
        task=arguments.task,
        metric=arguments.metric,
        filter=arguments.filter,
    )
    if arguments.json:
        print(json.dumps({"bank": arguments.out, **bank.provenance}, indent=2, default=str))
    else:
        for name, value in bank.provenance.items():
            print(f"  {name:<12} {value}", file=sys.stderr)
        print(f"wrote {arguments.out}", file=sys.stderr)
    return DONE


def add_estimate(verbs: Any) -> None:
    """Add the verb `estimate`."""
    parser = verb(
        verbs,
        "estimate",
        "backtest: estimate scores from N items of models with complete answers, and compare with their full scores",
        """
evomerge estimate bank.json answers.csv --items 50
evomerge estimate bank.json answers.csv --items 10 --parents pedigree.csv --json
""",
        _run_estimate,
    )
    parser.add_argument("bank", metavar="BANK", help="item bank that calibrate wrote")
    parser.add_argument("answers", metavar="ANSWERS", help="complete answers of the models to estimate")
    parser.add_argument("--items", type=int, required=True, metavar="N", help="items that each model answers")
    parser.add_argument(
        "--method",
        default="auto",
        metavar="M",
        help="auto, raw, anchor, p-irt, gp-irt, mp-irt or adaptive; default: auto",
    )
    parser.add_argument("--parents", metavar="FILE.csv", help="columns child, parent_1, parent_2 of merges")
    parser.add_argument("--level", type=float, default=0.9, metavar="L", help="of the intervals; default: 0.9")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the choice of items; default: 0")
    parser.add_argument("--json", action="store_true", help="print JSON, one object per model")


def _run_estimate(arguments: argparse.Namespace) -> int:
    from evomerge.irt import as_json, estimate

    found = estimate(
        arguments.bank,
        arguments.answers,
        arguments.items,
        method=arguments.method,
        parents=arguments.parents,
        level=arguments.level,
        seed=arguments.seed,
    )
    if arguments.json:
        print(as_json(found))
        return DONE
    import pandas as pd

    from evomerge.runs import print_table

    print_table(pd.DataFrame(found).drop(columns="warnings"))
    inside = sum(entry["low"] <= entry["truth"] <= entry["high"] for entry in found) / len(found)
    error = sum(abs(entry["estimate"] - entry["truth"]) for entry in found) / len(found)
    print(f"mean absolute error {100 * error:.2f} points; {100 * inside:.0f}% of the intervals hold the truth")
    for warning in dict.fromkeys(text for entry in found for text in entry["warnings"]):
        print(f"evomerge: {warning}", file=sys.stderr)
    return DONE


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{option} must be auto or a whole number, got {text!r}") from None
