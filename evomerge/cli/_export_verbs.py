"""The verbs that write models and files: export, merge, convert."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from evomerge.cli._verb import DONE, folder_verb, verb


def add_export(verbs: Any) -> None:
    """Add the verb `export`."""
    parser = folder_verb(
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
        help="candidate to write: the best (default), the front's knee, a number of `trials`, or weights as in "
        "'add=2,sort=1'",
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
    from evomerge.runs import open_run

    run = open_run(arguments.folder)
    message = run.export(arguments.to, pick=arguments.pick, form=arguments.form, rank=arguments.rank)
    print(message, file=sys.stderr)
    return DONE


def add_merge(verbs: Any) -> None:
    """Add the verb `merge`."""
    parser = verb(
        verbs,
        "merge",
        "merge the models of one recipe and write the result; a mergekit YAML is a recipe",
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
    from evomerge.commands import merge_recipe

    print(merge_recipe(arguments.recipe, arguments.to, form=arguments.form, rank=arguments.rank), file=sys.stderr)
    return DONE


def add_convert(verbs: Any) -> None:
    """Add the verb `convert`."""
    parser = verb(
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
    from evomerge.config import load_plain, search_file_text
    from evomerge.runs import write_text

    text = search_file_text(load_plain(arguments.file), layers=arguments.layers, name=arguments.file)
    write_text(text, arguments.to)
    return DONE
