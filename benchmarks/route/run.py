"""What routes cost in the resident model: switching between them, and scoring a population that begins alike.

    python benchmarks/route/run.py switch --size 113m --folder scratch/models --rounds 21
    python benchmarks/route/run.py share --routes 64 --items 25

`switch` points the stack at two routes in turn. `point` is the switch itself; `write` also takes the hash of every
layer that will run, which proves what is scored; `materialise` copies the route's layers, as a frankenmerge in memory
would, and is the baseline of the same round. Bytes copied are those of parameters whose memory no model owned before.

`share` scores populations of routes over the shipped experts, once with activations shared between candidates and once
without, in turn. Layer evaluations are tokens times layers, of prompts and of written answers. All answers of both
must be equal, item by item. No route comes twice: a search knows equal ones by their digests. Populations:

- edits: the base's own stack with one edit at a place drawn evenly (insert, delete, swap a neighbour, repeat, other
  source, other scale);
- indicators: 3 repeats of two stacks as slots (48), start at the first stack, each slot flipped with probability 1/24;
- repeats: 'repeat block (i, j)' for all i < j in order, the whole stack once.

Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "merge"))
import made

from evomerge.candidate import Answers, Candidate, Job, Outcome
from evomerge.engine import ResidentModel
from evomerge.recipe import Recipe, Source
from evomerge.scoring import TaskSet, TaskSettings
from evomerge.workers import WorkerSpec
from evomerge.workers._worker import Worker

Hop = tuple[str, int, float]
Route = tuple[Hop, ...]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASKS = ("add", "sort", "words")
SEED = 0


def lend(models: list[str], route: Route) -> Recipe:
    return Recipe("passthrough", tuple(Source(model) for model in models), route=route)


def spread(values: list[float], form: str = "{:.2f}") -> str:
    return " / ".join(form.format(value) for value in (min(values), statistics.median(values), max(values)))


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def switch(options: argparse.Namespace) -> None:
    models = made.make(options.folder, options.size)[:3]
    depth = made.SIZES[options.size]["num_hidden_layers"]
    resident = ResidentModel(models)
    even = tuple((models[layer % 3], layer, 1.0) for layer in range(depth))
    odd = tuple((models[(place + 1) % 3], place * 3 % depth, 1.1) for place in range(depth + depth // 2))
    for route in (even, odd):
        resident.write(lend(models, route))
    routes = resident._routes
    owned = {tensor.data_ptr() for tensors in resident._tensors.values() for tensor in tensors.values()}
    owned |= {place.data_ptr() for place in resident._parameters.values()}
    stops = []
    for route in (even, odd):
        resident.write(lend(models, route))
        stops.append([visit.forward._stop for visit in routes.stack._stack])
    point, write, copied, fresh = [], [], [], 0
    for number in range(options.rounds):
        route = (even, odd)[number % 2]
        target = routes.stack
        point.append(1e6 * seconds(lambda t=target, s=stops[number % 2]: t.point(s)))
        layers = list(routes.stack._stack)
        parameters = {id(p): p for layer in layers for p in layer.parameters()}.values()
        fresh += sum(p.numel() * p.element_size() for p in parameters if p.data_ptr() not in owned)
        copied.append(1e6 * seconds(lambda ls=layers: [p.clone() for layer in ls for p in layer.parameters()]))
        write.append(1e6 * seconds(lambda r=route: resident.write(lend(models, r))))
    print(f"\n{options.size}, {len(even)} and {len(odd)} layers in turn, {options.rounds} rounds, {made.origin(1)}\n")
    print("| what | microseconds | materialise / this | bytes copied |\n|---|---|---|---|")
    size = sum(p.numel() * p.element_size() for layer in layers for p in layer.parameters())
    for name, values, count in (("point", point, fresh), ("write", write, fresh), ("materialise", copied, size)):
        ratio = [c / v for c, v in zip(copied, values, strict=True)]
        print(f"| {name} | {spread(values, '{:.0f}')} | {spread(ratio, '{:.1f}')} | {count} |")


def edits(models: list[str], count: int, draw: random.Random) -> list[Route]:
    base, other = models[:2]
    start = [(base, layer, 1.0) for layer in range(8)]
    found = [tuple(start)]
    while len(found) < count:
        route, place = list(start), draw.randrange(len(start))
        source, layer, _ = route[place]
        kind = draw.choice(["insert", "delete", "swap", "repeat", "source", "scale"])
        if kind == "insert":
            route.insert(place, (other, draw.randrange(8), 1.0))
        elif kind == "delete":
            del route[place]
        elif kind == "swap" and place:
            route[place - 1], route[place] = route[place], route[place - 1]
        elif kind == "repeat":
            route.insert(place, route[place])
        else:
            route[place] = (other, layer, 1.0) if kind == "source" else (source, layer, draw.uniform(0.8, 1.25))
        if tuple(route) not in found:
            found.append(tuple(route))
    return found


def indicators(models: list[str], count: int, draw: random.Random) -> list[Route]:
    slots = [(model, layer, 1.0) for _ in range(3) for model in models[:2] for layer in range(8)]
    found: list[Route] = []
    while len(found) < count:
        used = [(place < 8) != (bool(found) and draw.random() < 1 / 24) for place in range(len(slots))]
        route = tuple(hop for hop, on in zip(slots, used, strict=True) if on)
        if route and route not in found:
            found.append(route)
    return found


def repeats(models: list[str], count: int, draw: random.Random) -> list[Route]:
    start = [(models[0], layer, 1.0) for layer in range(8)]
    blocks = [(i, j) for i in range(8) for j in range(i + 1, 9)]
    found = [tuple(start), *(tuple(start[:j] + start[i:]) for i, j in blocks)]
    return [*found, *(tuple(start[:j] + 2 * start[i:j] + start[j:]) for i, j in blocks)][:count]


def answers(worker: Worker, candidate: Candidate, items: dict[str, tuple[str, ...]]) -> tuple[dict, Outcome]:
    values, outcome = {}, None
    for part in worker.evaluate(Job(candidate, "search", items)):
        if isinstance(part, Answers):
            values |= {(r.task, r.item, r.metric): (r.value, r.answer) for r in part.responses}
        else:
            outcome = part
    assert outcome is not None
    return values, outcome


def share(options: argparse.Namespace) -> None:
    models = [str(EXAMPLES / "experts" / name) for name in ("base", "add", "sort")]
    settings = TaskSettings(include=(str(EXAMPLES / "tasks"),))
    tasks = TaskSet.load(TASKS, settings)
    items = {task: tuple(d.id for d in tasks.documents(task)[: options.items]) for task in TASKS}
    rows = []
    for population in [one for one in (edits, indicators, repeats) if one.__name__ in options.populations]:
        routes = population(models[::-1][:2], options.routes, random.Random(SEED))
        workers = [WorkerSpec(tuple(models), TASKS, settings, share_bytes=b).build() for b in (options.bytes, 0)]
        run = shared = naive = 0.0
        times: list[list[float]] = [[], []]
        for number, route in enumerate(routes):
            candidate = Candidate(number, lend(models[::-1][:2], route))
            (ours, outcome), (plain, alone) = (answers(worker, candidate, items) for worker in workers)
            assert ours == plain, f"candidate {number}: the answers differ"
            assert outcome.fingerprint == alone.fingerprint
            run, shared = run + outcome.stages["layers.run"], shared + outcome.stages["layers.shared"]
            naive += alone.stages["layers.run"]
            for kept, one in zip(times, (outcome, alone), strict=True):
                kept.append(sum(v for name, v in one.stages.items() if name.startswith("score.")))
        assert run + shared == naive
        store = workers[0]._resident._routes.store
        hops = [hop for route in routes for hop in route]
        trie = {route[: place + 1] for route in routes for place in range(len(route))}
        nodes = f"{len(trie) / len(hops):.3f}"
        rows.append(
            f"| {population.__name__} | {len(hops) / len(routes):.1f} | {nodes} "
            f"| {run / naive:.3f} | {sum(times[0]) / sum(times[1]):.2f} | {store.bytes / 2**20:.0f} |"
        )
        print(rows[-1], flush=True)
    print(f"\n{options.routes} routes, {options.items} items of {', '.join(TASKS)}, {made.origin(1)}\n")
    print("| population | layers | nodes / hops | run / naive | seconds / naive | MiB held |")
    print("|---|---|---|---|---|---|\n" + "\n".join(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    first = verbs.add_parser("switch")
    first.add_argument("--size", choices=made.SIZES, default="20m")
    first.add_argument("--folder", type=Path, required=True, help="where the models are, or are made")
    first.add_argument("--rounds", type=int, default=21)
    second = verbs.add_parser("share")
    second.add_argument("--routes", type=int, default=64)
    second.add_argument("--items", type=int, default=25)
    second.add_argument("--populations", nargs="+", default=["edits", "indicators", "repeats"])
    second.add_argument("--bytes", type=int, default=2**30, help="memory for what is shared")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (switch if options.verb == "switch" else share)(options)


if __name__ == "__main__":
    main()
