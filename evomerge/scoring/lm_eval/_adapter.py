"""The interface to lm-eval: tasks, prompts, filters and metrics are lm-eval's own, through its public calls.

Nothing else imports lm_eval. Its task objects build the prompts and grade the outputs; its global reseeding and its
logging stay inside this interface.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import importlib.util
import json
import logging
import math
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from evomerge.candidate import Objective, Response
from evomerge.errors import ExtraMissing, TaskError, near
from evomerge.irt import item_id
from evomerge.scoring._answer_flags import UNEXTRACTED, extraction_failed
from evomerge.scoring._rng import temporary_seed
from evomerge.scoring.estimation._mean import metric_key
from evomerge.scoring.lm_eval._documents import Document
from evomerge.scoring.lm_eval._settings import TaskSettings
from evomerge.scoring.lm_eval._tasks import Leaf, Loading

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

SHOWN_CHARACTERS = 200  # characters of a generated answer, kept with its response


@dataclass(frozen=True)
class Prompt:
    """The requests of one document, ready for any candidate; `requests` are lm-eval's own Instance objects."""

    item: str
    document: Any
    requests: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """What is asked of the model: loglikelihood, loglikelihood_rolling or generate_until."""
        return str(self.requests[0].request_type)


class TaskSet:
    """The tasks of a run, loaded once per process. Groups and tags are expanded to their tasks."""

    def __init__(self, leaves: Mapping[str, Leaf], groups: Mapping[str, tuple[str, ...]], settings: TaskSettings):
        self._leaves = dict(leaves)
        self._groups = dict(groups)
        self.settings = settings

    @classmethod
    def load(cls, names: Iterable[str], settings: TaskSettings | None = None) -> TaskSet:
        """Return the named tasks.

        Args:
            names: of tasks, groups or tags, or paths of task YAML files.
            settings: where task files are, and how tasks are asked.

        Raises:
            TaskError: names all unknown tasks with near names, task files that cannot be read, data files that are
                missing, and datasets that would have to come from a hub that cannot be reached.
        """
        settings = settings or TaskSettings()
        with warnings.catch_warnings():  # tqdm asks for widgets on import in a notebook; no bar here needs them
            warnings.filterwarnings("ignore", message="IProgress not found")
            _require("lm_eval", "datasets")
            from lm_eval.tasks import TaskManager

        def manager(folders: list[str], defaults: bool) -> TaskManager:
            if defaults and not folders and settings["metadata"] is None:
                return _builtin_tasks()
            return TaskManager(include_path=folders, include_defaults=defaults, metadata=settings["metadata"])

        with _quiet(), _seeded(settings), tempfile.TemporaryDirectory(prefix="evomerge-data-") as scratch:
            leaves, groups = Loading(settings, scratch, manager).load(list(dict.fromkeys(names)))
        return cls(leaves, groups, settings)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks, groups and tags expanded, in the order of asking."""
        return tuple(self._leaves)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the documents: repeated ids, repeated contents."""
        return tuple(warning for leaf in self._leaves.values() for warning in leaf.catalogue.warnings)

    def expand(self, name: str) -> tuple[str, ...]:
        """Return the tasks that a name stands for: itself, or the members of a group or tag."""
        if name in self._groups:
            return self._groups[name]
        self._leaf(name)
        return (name,)

    def documents(self, task: str) -> tuple[Document, ...]:
        """Return the documents of a task in the order of its data."""
        return self._leaf(task).catalogue.documents

    def names(self, task: str) -> dict[str, tuple[str, ...]]:
        """Return item -> the hashes by which an item bank may know it: ours, lm-eval's, and that of its plain text."""
        from lm_eval.utils import handle_non_serializable, hash_string

        leaf = self._leaf(task)
        found: dict[str, tuple[str, ...]] = {}
        for document, content in zip(leaf.catalogue.documents, leaf.contents, strict=True):
            logged = json.dumps(content, indent=2, default=handle_non_serializable, ensure_ascii=False)
            plain = json.dumps(content, sort_keys=True, default=handle_non_serializable, ensure_ascii=False)
            found[document.id] = (document.hash, hash_string(logged), item_id(plain))
        return found

    def metrics(self, task: str) -> tuple[str, ...]:
        """Return the metrics of a task that are means of per-item values, in the task's order."""
        return tuple(
            name for name in self._leaf(task).task.aggregation() if _refusal(self._leaf(task).task, name) is None
        )

    def filters(self, task: str) -> tuple[str, ...]:
        """Return the names of a task's answer filters; ('none',) where it defines none."""
        return tuple(name for name, _ in _filters(self._leaf(task).task))

    def writes(self, task: str) -> bool:
        """Return whether the answers of a task are written texts, and not chosen."""
        return bool(self._leaf(task).task.OUTPUT_TYPE == "generate_until")

    def version(self, task: str) -> str:
        """Return the task's own version and a hash of everything in its settings that can change an answer."""
        leaf = self._leaf(task)
        config = dict(leaf.task.dump_config())
        for key in ("dataset_kwargs", "metadata", "task_alias", "tag"):  # paths and labels; contents are hashed below
            config.pop(key, None)
        settings = {name: self.settings[name] for name in ("system_instruction", "apply_chat_template", "model_args")}
        settings |= {name: self.settings[name] for name in ("fewshot_as_multiturn", "fewshot_random_seed")}
        facts = [config, settings, [document.hash for document in leaf.catalogue.documents]]
        text = json.dumps(facts, sort_keys=True, default=_named)
        return f"{leaf.task.VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def objective(
        self,
        task: str,
        metric: str | None = None,
        filter: str | None = None,
        goal: Literal["maximize", "minimize"] | None = None,
        weight: float = 1.0,
        name: str | None = None,
    ) -> Objective:
        """Return a metric of a task as an objective.

        Args:
            task: as loaded; a group is refused with the names of its tasks.
            metric: default the task's first; 'exact_match,strict' names a filter too.
            filter: default the task's first.
            goal: default what lm-eval says about the metric.
            weight: for controllers that need one number.
            name: default the task's name.

        Raises:
            TaskError: the task, metric or filter does not exist, or the metric is not a mean of per-item values.
        """
        if task in self._groups:
            raise TaskError(f"{task!r} is a group; name one of its tasks: {', '.join(self._groups[task])}")
        leaf = self._leaf(task)
        if metric is not None and "," in metric and filter is None:
            metric, filter = (part.strip() for part in metric.split(",", 1))
        metric = metric if metric is not None else next(iter(leaf.task.aggregation()))
        if metric not in leaf.task.aggregation():
            raise TaskError(f"task {task!r} has no metric {metric!r}. {near(metric, leaf.task.aggregation())}")
        refusal = _refusal(self._leaf(task).task, metric)
        if refusal is not None:
            usable = ", ".join(self.metrics(task)) or "none of its metrics"
            raise TaskError(f"metric {metric!r} of task {task!r} {refusal}; usable here: {usable}")
        filter = filter if filter is not None else self.filters(task)[0]
        if filter not in self.filters(task):
            raise TaskError(f"task {task!r} has no filter {filter!r}. {near(filter, self.filters(task))}")
        if goal not in (None, "maximize", "minimize"):
            raise TaskError(f"goal of task {task!r} must be 'maximize' or 'minimize', got {goal!r}")
        known: Literal["maximize", "minimize"] = "maximize" if leaf.task.higher_is_better()[metric] else "minimize"
        return Objective(name or task, task, metric, goal or known, weight, filter)

    def prompts(self, task: str, items: Iterable[str], lm: HFLM) -> tuple[Prompt, ...]:
        """Return the requests of some documents of a task, in the order of `items`.

        A document's few-shot examples are those that it has when lm-eval runs the whole task, whichever items are
        asked for: the examples are drawn for all documents in turn. Responses to an item are therefore comparable
        across candidates, runs and item counts.

        Raises:
            TaskError: an item does not exist, or a chat template is asked for and the tokenizer has none.
        """
        leaf = self._leaf(task)
        position = {document.id: index for index, document in enumerate(leaf.catalogue.documents)}
        wanted = list(items)
        for item in wanted:
            if item not in position:
                raise TaskError(f"task {task!r} has no document {item!r}; it has {len(position)}")
        template = self._template(task, lm)
        with _quiet(), _seeded(self.settings):
            requests = self._requests(leaf, {position[item] for item in wanted}, template)
        return tuple(Prompt(item, leaf.contents[position[item]], requests[position[item]]) for item in wanted)

    def grade(self, task: str, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Any]]) -> tuple[Response, ...]:
        """Return the responses for a model's outputs: all metrics of the task that are means of per-item values.

        Where a filter extracts the answer from a text, `mishaps.UNEXTRACTED` says whether it found none.

        Args:
            task: name.
            prompts: what was asked, see `prompts`.
            outputs: per prompt and request the model's outputs, as many as the task repeats a request: pairs
                (log likelihood, is greedy) or generated texts.
        """
        from lm_eval.filters import build_filter_ensemble

        leaf = self._leaf(task)
        asked = [
            [
                replace(request, resps=list(given), filtered_resps={})
                for request, given in zip(prompt.requests, answer, strict=True)
            ]
            for prompt, answer in zip(prompts, outputs, strict=True)
        ]
        usable = set(self.metrics(task))
        responses: list[Response] = []
        with _quiet(), _seeded(self.settings):
            for name, steps in _filters(leaf.task):
                build_filter_ensemble(name, steps).apply([request for requests in asked for request in requests])
                for prompt, requests in zip(prompts, asked, strict=True):
                    results = [request.filtered_resps[name] for request in requests]
                    graded = leaf.task.process_results(prompt.document, results)
                    shown = _shown(leaf.task, results)
                    responses += [
                        Response(task, prompt.item, metric_key(metric, name), float(value), shown)
                        for metric, value in graded.items()
                        if metric in usable and _is_number(value)
                    ]
                    missed = extraction_failed(steps, results)
                    if missed is not None:
                        responses.append(Response(task, prompt.item, metric_key(UNEXTRACTED, name), float(missed)))
        return tuple(responses)

    def _leaf(self, task: str) -> Leaf:
        if task not in self._leaves:
            raise TaskError(f"task {task!r} was not loaded. {near(task, self._leaves)}")
        return self._leaves[task]

    def _template(self, task: str, lm: HFLM) -> Callable[..., str] | None:
        if not self.settings["apply_chat_template"]:
            return None
        if not getattr(lm.tokenizer, "chat_template", None):
            raise TaskError(
                f"task {task!r}: apply_chat_template is set, but the tokenizer has no chat template; "
                "unset it, or give the base model's folder a chat_template.jinja"
            )
        return lm.apply_chat_template

    def _requests(
        self, leaf: Leaf, wanted: set[int], template: Callable[..., str] | None
    ) -> dict[int, tuple[Any, ...]]:
        task, shots = leaf.task, leaf.task.get_config("num_fewshot") or 0
        chat = template is not None
        task.set_fewshot_seed(seed=self.settings["fewshot_random_seed"])
        requests: dict[int, tuple[Any, ...]] = {}
        for index, document in enumerate(leaf.contents[: max(wanted, default=-1) + 1]):
            # Each context advances the sampler of examples, so with examples none of them may be passed over.
            if index not in wanted and not shots:
                continue
            context = task.fewshot_context(
                document,
                num_fewshot=shots,
                system_instruction=self.settings["system_instruction"],
                apply_chat_template=chat,
                fewshot_as_multiturn=self.settings["fewshot_as_multiturn"],
                chat_template=template,
                gen_prefix=task.doc_to_prefix(document),
            )
            if index in wanted:
                built = task.construct_requests(
                    doc=document,
                    ctx=context,
                    metadata=(task.task_name, index, task.get_config("repeats") or 1),
                    apply_chat_template=chat,
                    chat_template=template,
                )
                requests[index] = tuple(built) if isinstance(built, list) else (built,)
        return requests


def _refusal(task: Any, metric: str) -> str | None:
    """Return why a metric of lm-eval's `task` cannot be a score here, or None."""
    from lm_eval.api.registry import get_aggregation

    aggregation = task.aggregation()[metric]
    if metric == "likelihood":  # its items are pairs, though lm-eval lists it as a mean
        return "is not a number per item"
    if aggregation is not get_aggregation("mean"):
        name = getattr(aggregation, "__name__", str(aggregation))
        return f"is computed over the whole task ({name}), not as a mean of per-item values"
    return None


def make_lm(model: Any, tokenizer: Any, settings: TaskSettings, batch_size: int) -> HFLM:
    """Return lm-eval's own adapter around a model in memory; it asks exactly as lm-eval's `hf` model does."""
    _require("lm_eval", "torch", "transformers")
    from lm_eval.models.huggingface import HFLM

    arguments = dict(settings["model_args"] or {})
    with _quiet(), _seeded(settings):
        # lm-eval may add a padding token to the tokenizer; the caller's stays as it is.
        return HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size, **arguments)


def ask(lm: HFLM, requests: Sequence[Any], settings: TaskSettings) -> list[list[Any]]:
    """Return the outputs of lm-eval's adapter per request, all of one kind: how `simple_evaluate` asks them."""
    repeated = [request for request in requests for _ in range(request.repeats or 1)]
    with _quiet(), _seeded(settings):
        outputs = iter(getattr(lm, requests[0].request_type)(repeated))
    return [[next(outputs) for _ in range(request.repeats or 1)] for request in requests]


def writing(lm: HFLM, arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], int, dict[str, Any]]:
    """Return (stop strings, new tokens at most, other arguments) of a written answer as lm-eval's adapter reads it."""
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

    with _quiet():
        known = dict(normalize_gen_kwargs(dict(arguments), lm.max_gen_toks))
    end = lm.tok_decode(lm.eot_token_id, skip_special_tokens=False)
    until = handle_stop_sequences(known.pop("until", None), eos=end)
    return tuple(until), int(known.pop("max_gen_toks")), known


def rolling_windows(lm: HFLM, text: str) -> list[tuple[list[int], list[int]]]:
    """Return (tokens before, tokens scored) per window over a text, as lm-eval's adapter cuts it."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    windows = get_rolling_token_windows(
        token_list=lm.tok_encode(text),
        prefix_token=lm.prefix_token_id,
        max_seq_len=lm.max_length,
        context_len=1,
    )
    return [make_disjoint_window(window) for window in windows]


def _filters(task: Any) -> list[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Return (name, steps) per filter of a task, from its settings."""
    listed = task.get_config("filter_list") or [{"name": "none", "filter": [{"function": "take_first"}]}]
    return [
        (
            str(entry["name"]),
            [(step["function"], {key: step[key] for key in step if key != "function"}) for step in entry["filter"]],
        )
        for entry in listed
    ]


def _shown(task: Any, results: Sequence[Any]) -> str:
    """Return what a reader wants to see of an answer: the choice's index, or the text, shortened."""
    kind = task.OUTPUT_TYPE
    if kind == "multiple_choice":
        # Mutual information asks every choice a second time, without the question.
        choices = len(results) // 2 if "acc_mutual_info" in task.aggregation() else len(results)
        likelihoods = [result[0] for result in results[:choices]]
        return str(max(range(choices), key=likelihoods.__getitem__))
    if kind == "generate_until":
        text = results[0] if isinstance(results[0], str) else str(results[0])
        return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    if kind == "loglikelihood":
        return "greedy" if results[0][1] else "not greedy"
    return ""


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value)) and not isinstance(value, str)
    except (TypeError, ValueError):
        return False


def _named(value: Any) -> str:
    """Return a stable text for a function or object inside a task's settings; its address would change per process."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"


def _require(*packages: str) -> None:
    """Raise ExtraMissing for the first package that is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ExtraMissing(package, "lm-eval")


def _seeded(settings: TaskSettings) -> contextlib.AbstractContextManager[None]:
    """Seed the global generators as `simple_evaluate` does, for this block only."""
    return temporary_seed(settings["random_seed"], settings["numpy_random_seed"], settings["torch_random_seed"])


@functools.cache
def _builtin_tasks() -> TaskManager:
    """Return lm-eval's own tasks; they do not change while a process runs, and reading them takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


class _UnmutedStream:
    """A standard stream that drops what muted threads write; the text of every other thread passes."""

    def __init__(self, stream: Any, muted: Mapping[int, int]) -> None:
        self._stream, self._muted = stream, muted

    def write(self, text: str) -> int:
        """Write a text, or drop it where the calling thread is muted."""
        return len(text) if threading.get_ident() in self._muted else int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of the stream behind, such as its encoding."""
        return getattr(self._stream, name)


class _Mute:
    """Drops what chosen threads write to standard output and error, and touches no other thread's text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth: dict[int, int] = {}  # thread -> how many blocks it is in
        self._streams: dict[str, tuple[Any, _UnmutedStream]] = {}  # the replaced stream and what stands in its place

    @contextlib.contextmanager
    def this_thread(self) -> Iterator[None]:
        """Mute the calling thread for this block."""
        thread = threading.get_ident()
        with self._lock:
            if not self._depth:
                self._replace()
            self._depth[thread] = self._depth.get(thread, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._depth[thread] -= 1
                if not self._depth[thread]:
                    del self._depth[thread]
                if not self._depth:
                    self._restore()

    def _replace(self) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            self._streams[name] = (stream, _UnmutedStream(stream, self._depth))
            setattr(sys, name, self._streams[name][1])

    def _restore(self) -> None:
        for name, (before, ours) in self._streams.items():
            if getattr(sys, name) is ours:  # otherwise it was replaced in the meantime, and ours passes everything on
                setattr(sys, name, before)
        self._streams = {}


_MUTE = _Mute()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars and advice meant for a command line off the terminal; errors are raised, not printed.

    Other threads print as before, since a progress line or a logger of theirs may run while tasks load.
    """
    import datasets

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels, bars = [logger.level for logger in loggers], datasets.utils.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.utils.disable_progress_bars()
    try:
        with _MUTE.this_thread():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.utils.enable_progress_bars()
