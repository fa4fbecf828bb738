"""The command line: one verb, one public call. Messages go to stderr, results and `--json` to stdout."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from evomerge import __version__
from evomerge.errors import EvomergeError, InputError

DONE, WRONG_INPUT, NO_CANDIDATE, INTERRUPTED = 0, 2, 3, 130

OVERVIEW = """\
Find the merge, or the whole Pareto front of merges, of fine-tuned language models that serves your tasks best.

  evomerge check  search_spaces/quickstart.yaml      is the file right, do the models fit, do the tasks exist
  evomerge search search_spaces/quickstart.yaml      search; progress is saved as it goes
  evomerge resume runs/quickstart                    go on after Ctrl-C, a crash, or with a larger budget
  evomerge front  runs/quickstart --plot front.png   the trade-offs that were found
  evomerge export runs/quickstart --to merged        the best merge as a folder that transformers loads

'evomerge VERB --help' explains a verb with examples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 2 wrong input, 3 no usable candidate, 130 stopped."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "call"):
        parser.print_help()
        return WRONG_INPUT
    # A scheduler that takes the machine back sends SIGTERM: then too, everything is saved and workers are closed.
    with suppress(ValueError):  # not the main thread: signals are somebody else's
        signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        status: int = arguments.call(arguments)
        sys.stdout.flush()
        return status
    except EvomergeError as error:
        print(f"evomerge: {error}", file=sys.stderr)
        return WRONG_INPUT if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        print("evomerge: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of a pipe (head, less) left; that is not an error of ours
        sys.stderr.close()
        return DONE


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; also what the documentation is generated from."""
    parser = argparse.ArgumentParser(
        prog="evomerge", description=OVERVIEW, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"evomerge {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for add in (
        _check,
        _search,
        _resume,
        _status,
        _trials,
        _front,
        _export,
        _merge,
        _score,
        _replay,
        _calibrate,
        _estimate,
        _convert,
    ):
        add(verbs)
    return parser


def _verb(
    verbs: Any, name: str, summary: str, examples: str, call: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    text = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(call=call)
    return parser


# --- search -----------------------------------------------------------------------------------------------------


def _check(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "check",
        "read a search file, the models' headers and the tasks, and report every problem; loads no weights",
        "evomerge check search_spaces/quickstart.yaml",
        _run_check,
    )
    parser.add_argument("file", metavar="FILE", help="search file (YAML)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _run_check(arguments: argparse.Namespace) -> int:
    from evomerge.run.check import check

    report = check(arguments.file)
    print(json.dumps(report.to_mapping(), indent=2) if arguments.json else report.text())
    return DONE


def _search_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="ADDR", help="Ray cluster to use: 'auto' or host:port")
    parser.add_argument("--candidates", type=int, metavar="N", help="budget: candidates in all, replacing the file's")
    parser.add_argument("--workers", type=int, metavar="N", help="Ray workers; default: this process alone")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _search(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "search",
        "search the merges that a file describes",
        """
evomerge search search_spaces/quickstart.yaml
evomerge search mine.yaml --out runs/mine --workers 4
evomerge search mine.yaml --candidates 20 --seed 1     a first look
""",
        _run_search,
    )
    parser.add_argument("file", metavar="FILE", help="search file (YAML)")
    parser.add_argument("--out", metavar="DIR", help="run folder; default: runs/<file name>")
    parser.add_argument("--seed", type=int, metavar="N", help="replaces the file's seed")
    _search_options(parser)


def _run_search(arguments: argparse.Namespace) -> int:
    from evomerge.run.progress import progress_printer
    from evomerge.run.session import search

    run = search(
        arguments.file,
        out=arguments.out,
        address=arguments.address,
        workers=arguments.workers,
        candidates=arguments.candidates,
        seed=arguments.seed,
        progress=None if arguments.quiet else progress_printer(sys.stderr),
    )
    return _end_of_search(run)


def _resume(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "resume",
        "go on with a search that was stopped, or give a finished one a larger budget",
        """
evomerge resume runs/quickstart
evomerge resume runs/quickstart --candidates 500
""",
        _run_resume,
    )
    parser.add_argument("folder", metavar="DIR", help="run folder")
    _search_options(parser)


def _run_resume(arguments: argparse.Namespace) -> int:
    from evomerge.run.progress import progress_printer
    from evomerge.run.session import resume

    run = resume(
        arguments.folder,
        address=arguments.address,
        workers=arguments.workers,
        candidates=arguments.candidates,
        progress=None if arguments.quiet else progress_printer(sys.stderr),
    )
    return _end_of_search(run)


def _end_of_search(run: Any) -> int:
    print(run.summary())
    if run.state == "interrupted":
        return INTERRUPTED
    return DONE if run.has_result else NO_CANDIDATE


# --- look -------------------------------------------------------------------------------------------------------


def _folder_verb(verbs: Any, name: str, summary: str, examples: str, call: Any) -> argparse.ArgumentParser:
    parser = _verb(verbs, name, summary, examples, call)
    parser.add_argument("folder", metavar="DIR", help="run folder")
    return parser


def _status(verbs: Any) -> None:
    parser = _folder_verb(
        verbs,
        "status",
        "say what is running, the best so far, failures and utilisation",
        "evomerge status runs/quickstart\nevomerge status runs/quickstart --json",
        _run_status,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_status(arguments: argparse.Namespace) -> int:
    from evomerge.results import open_run

    run = open_run(arguments.folder)
    print(json.dumps(run.status(), indent=2) if arguments.json else run.status_text())
    return DONE


def _trials(verbs: Any) -> None:
    parser = _folder_verb(
        verbs,
        "trials",
        "list the candidates, one row each: status, scores with standard errors, genes",
        """
evomerge trials runs/quickstart
evomerge trials runs/quickstart --csv trials.csv
evomerge trials runs/quickstart --csv - | head
""",
        _run_trials,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", metavar="F", help="write CSV to F ('-': stdout)")
    kind.add_argument("--parquet", metavar="F", help="write Parquet to F (needs pyarrow)")
    kind.add_argument("--json", action="store_true", help="print JSON, one object per candidate")


def _run_trials(arguments: argparse.Namespace) -> int:
    from evomerge.results import open_run
    from evomerge.results.tables import print_table, write_csv, write_json, write_parquet

    table = open_run(arguments.folder).trials()
    if arguments.csv:
        write_csv(table, arguments.csv)
    elif arguments.parquet:
        write_parquet(table, arguments.parquet)
    elif arguments.json:
        write_json(table)
    else:
        print_table(table)
    return DONE


def _front(verbs: Any) -> None:
    parser = _folder_verb(
        verbs,
        "front",
        "show the Pareto front: the candidates that no other beats on every objective",
        """
evomerge front runs/quickstart
evomerge front runs/quickstart --plot front.png
evomerge front runs/quickstart --json
""",
        _run_front,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", metavar="F", help="write CSV to F ('-': stdout)")
    kind.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="F", help="draw the front to F (.png, .svg, .pdf, .html)")


def _run_front(arguments: argparse.Namespace) -> int:
    from evomerge.results import open_run
    from evomerge.results.tables import print_table, write_csv

    run = open_run(arguments.folder)
    if arguments.plot:
        from evomerge import figures

        figures.save(figures.front(run), arguments.plot)
        print(f"wrote {arguments.plot}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(run.front_mapping(), indent=2))
    elif arguments.csv:
        write_csv(run.front(), arguments.csv)
    else:
        print_table(run.front())
    return DONE


# --- take away --------------------------------------------------------------------------------------------------


def _export(verbs: Any) -> None:
    parser = _folder_verb(
        verbs,
        "export",
        "write a candidate as a model folder, a LoRA adapter of its base, a mergekit YAML, or a recipe",
        """
evomerge export runs/quickstart --to merged
evomerge export runs/quickstart --to merged --pick knee
evomerge export runs/quickstart --to merged --pick "add=2,sort=1"
evomerge export runs/quickstart --to best.yaml --as mergekit
evomerge export runs/quickstart --to adapter --as lora --rank 16
""",
        _run_export,
    )
    parser.add_argument(
        "--to", metavar="OUT", required=True, help="folder (hf, lora) or file (mergekit, recipe; '-': stdout)"
    )
    parser.add_argument(
        "--pick",
        default="best",
        metavar="best|knee|ID|PREFERENCE",
        help="which candidate: the best (default), the front's knee, a number, or weights as in 'add=2,sort=1'",
    )
    parser.add_argument(
        "--as", dest="form", choices=["hf", "lora", "mergekit", "recipe"], default="hf", help="default: hf"
    )
    _rank_option(parser)


def _rank_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rank", metavar="N|auto", help="with --as lora: rank of every matrix, or auto (default): what each one needs"
    )


def _run_export(arguments: argparse.Namespace) -> int:
    from evomerge.results import open_run

    run = open_run(arguments.folder)
    message = run.export(arguments.to, pick=arguments.pick, form=arguments.form, rank=arguments.rank)
    print(message, file=sys.stderr)
    return DONE


def _merge(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "merge",
        "carry out one recipe and write the merged model; a mergekit YAML is a recipe",
        """
evomerge merge recipe.yaml --to merged
evomerge merge recipe.yaml --to adapter --as lora      what the merge changed, as an adapter of its base model
""",
        _run_merge,
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="mergekit YAML, or a recipe that export wrote")
    parser.add_argument("--to", metavar="OUT", required=True, help="folder to write")
    parser.add_argument("--as", dest="form", choices=["hf", "lora"], default="hf", help="default: hf")
    _rank_option(parser)


def _run_merge(arguments: argparse.Namespace) -> int:
    from evomerge.run.verbs import merge_recipe

    print(merge_recipe(arguments.recipe, arguments.to, form=arguments.form, rank=arguments.rank), file=sys.stderr)
    return DONE


def _score(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "score",
        "score a model or a recipe on lm-eval tasks",
        """
evomerge score merged --tasks add,sort --include examples/tasks
evomerge score recipe.yaml --tasks add --include examples/tasks --json
""",
        _run_score,
    )
    parser.add_argument("model", metavar="MODEL_OR_RECIPE", help="folder, hub id, or recipe YAML")
    parser.add_argument(
        "--tasks", required=True, metavar="A,B", help="lm-eval task names, with ':metric' if not the first"
    )
    parser.add_argument("--include", action="append", default=[], metavar="DIR", help="where else lm-eval finds tasks")
    parser.add_argument(
        "--items", type=int, metavar="N", help="the first N pinned items a search would ask; default: all"
    )
    parser.add_argument("--num-fewshot", type=int, metavar="K", help="examples before each question")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: chosen from memory")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_score(arguments: argparse.Namespace) -> int:
    from evomerge.run.verbs import score

    result = score(
        arguments.model,
        tasks=[name for name in arguments.tasks.split(",") if name],
        include=arguments.include,
        items=arguments.items,
        num_fewshot=arguments.num_fewshot,
        batch_size=arguments.batch_size,
    )
    print(json.dumps(result.to_mapping(), indent=2) if arguments.json else result.text())
    return DONE


def _replay(verbs: Any) -> None:
    parser = _folder_verb(
        verbs,
        "replay",
        "build a candidate's weights again, compare their fingerprint, and score them again",
        "evomerge replay runs/quickstart --candidate 17",
        _run_replay,
    )
    parser.add_argument("--candidate", type=int, required=True, metavar="ID", help="candidate number, see trials")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_replay(arguments: argparse.Namespace) -> int:
    from evomerge.run.verbs import replay

    result = replay(arguments.folder, arguments.candidate)
    print(json.dumps(result.to_mapping(), indent=2) if arguments.json else result.text())
    return DONE if result.same else 1


def _calibrate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "calibrate",
        "learn an item bank from what many models answered, so that few items can tell a score",
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
    parser.add_argument("--json", action="store_true", help="print what was learnt as JSON")


def _run_calibrate(arguments: argparse.Namespace) -> int:
    from evomerge.run.calibration import calibrate_sources

    dims = arguments.dims if arguments.dims == "auto" else _whole(arguments.dims, "--dims")
    bank = calibrate_sources(
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


def _estimate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "estimate",
        "replay, on complete answers of other models, what a few items would have told",
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
    from evomerge.irt.replay import as_json, estimate

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

    from evomerge.results.tables import print_table

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


def _convert(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "convert",
        "turn a mergekit-evolve configuration into a search file",
        """
evomerge convert evolve.yaml --to search.yaml
evomerge convert evolve.yaml --layers 32            where layer_granularity divides the model's depth
""",
        _run_convert,
    )
    parser.add_argument("file", metavar="FILE", help="mergekit-evolve configuration (genome: and tasks:)")
    parser.add_argument("--to", default="-", metavar="F", help="search file to write; default: stdout")
    parser.add_argument("--layers", type=int, metavar="N", help="hidden layers of the models; for layer_granularity")


def _run_convert(arguments: argparse.Namespace) -> int:
    from evomerge.mergekit_evolve import search_file_text
    from evomerge.results.exporting import write_text
    from evomerge.searchfile import load_plain

    text = search_file_text(load_plain(arguments.file), layers=arguments.layers, name=arguments.file)
    write_text(text, arguments.to)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
