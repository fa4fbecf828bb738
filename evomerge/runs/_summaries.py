"""Texts of a run for the terminal: status, front, held-out comparison, and the next commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.candidate import Score
from evomerge.runs._candidate_selection import best_candidate
from evomerge.runs._frame_output import table_text
from evomerge.runs._fronts import MEASURED, FrontRequest, front_frame, front_of, remeasured_lines
from evomerge.runs._holdout import Final, finals_of
from evomerge.runs._run_data import RunData
from evomerge.runs._status import status_of
from evomerge.runs._tables import RunTables
from evomerge.scoring import SHORTENED, TRUNCATED, UNEXTRACTED, Difference

WORTH_SAYING = 0.05  # fraction of flagged answers above which a note is printed
SHOWN_POINTS = 12  # points of the front; `evomerge front` shows all


def status_text(run: RunData) -> str:
    """Return the status of a run in a few lines."""
    status = status_of(run)
    budget = status["budget"].get("candidates")
    lines = [
        f"{run.folder}: {status['state']}",
        f"  candidates  {status['done']} done, {status['failed']} failed" + (f", of {budget}" if budget else ""),
        f"  front       {status['front_size']} candidates, hypervolume {status['hypervolume']:.4g}",
        f"  time        {clock(status['seconds'])}; candidates took {clock(status['busy_seconds'])} of workers' time",
    ]
    lines.append(f"  use         {use_line(status)}")
    if best := status["best"]:
        scores = ", ".join(f"{name} {value:.3g} ± {best['stderr'][name]:.2g}" for name, value in best["score"].items())
        lines.insert(2, f"  best        candidate {best['candidate']}: {best['overall']:.4g} ({scores})")
    if "estimates" in status:
        lines += [f"  {line}" for line in estimate_lines(status["estimates"])]
    if status.get("constraints"):
        lines.append(f"  constraints {'; '.join(status['constraints'])}")
        if status["infeasible"]:
            lines.append(f"  note        {status['infeasible']}")
    for failure in status["last_failures"]:
        lines.append(f"  failed      candidate {failure['candidate']} ({failure['kind']}): {failure['message']}")
    if status["state"] in ("interrupted", "stopped"):
        lines.append(f"  continue with: evomerge resume {run.folder}")
    return "\n".join(lines)


def use_line(status: Mapping[str, Any]) -> str:
    """Return speed, busy fraction, each stage's fraction of the workers' time, and the cost where there is a price."""
    parts = []
    if status["candidates_per_hour"]:  # None before the first active second
        parts.append(f"{status['candidates_per_hour']:.4g} candidates/h")
    if status["busy_share"] is not None:
        # the fraction counts all work, which is more than the candidates' own time
        parts.append(f"workers busy {100 * status['busy_share']:.0f}% (loading, parents and held-out items included)")
    total = sum(status["stages"].values())
    # the longest stage first
    fractions = sorted(((seconds, stage) for stage, seconds in status["stages"].items()), reverse=True)
    if total:
        parts.append(" ".join(f"{stage} {100 * seconds / total:.0f}%" for seconds, stage in fractions if seconds))
    if status.get("layers_shared"):
        fraction = status["layers_shared"] / (status["layers_run"] + status["layers_shared"])
        parts.append(f"{100 * fraction:.0f}% of layer evaluations shared between routes")
    if status["lost_seconds"]:
        parts.append(f"{clock(status['lost_seconds'])} of lost work")
    if status["cost"] is not None:
        parts.append(f"cost {status['cost']:.4g}")
    return ", ".join(parts) or "nothing yet"


def summary_text(run: RunData) -> str:
    """Return what the end of a search prints."""
    state = run.state
    status = status_of(run)
    best = best_candidate(run)
    if best is None:
        if (why := run.infeasible()) is not None:  # scores exist, and the constraints exclude all of them
            return "\n".join([status_text(run), why, f"All results: evomerge trials {run.folder}"])
        return "\n".join([status_text(run), "no candidate could be scored; see: evomerge trials " + str(run.folder)])
    lines = [
        f"{status['done']} candidates scored, {status['failed']} failed, in {clock(status['seconds'])}.",
        "",
        *front_lines(run),
        "",
    ]
    if run.estimated:
        lines += [*estimate_lines(status["estimates"]), ""]
    if warnings := answer_flag_lines(run, best.number):
        lines += [*warnings, ""]
    if state == "interrupted":
        return "\n".join(
            [*lines, "interrupted; all results are saved. Continue with:", f"  evomerge resume {run.folder}"]
        )
    if finals := finals_of(run):
        lines += [*finals_lines(finals, best.number), ""]
    return "\n".join([*lines, "next:", *next_lines(run)])


def front_lines(run: RunData) -> list[str]:
    """Return the measured front as a table, with the parents above for comparison (search items)."""
    names = [objective.name for objective in run.objectives]
    front, parents = front_frame(run), RunTables(run).parents()
    label = max([12, *(len(f"parent {name}") for name in parents["name"])])  # 12: room for 'candidate 99'
    what = "search items; ~ estimated from few of them" if run.estimated else "search items"
    lines = [
        f"Pareto front, {len(front)} candidates ({what}; mean ± standard error):",
        " " * (label + 2) + "  ".join(f"{name:>13}" for name in names),
    ]
    for _, row in parents.iterrows():
        lines.append(f"  {'parent ' + row['name']:<{label}}" + "  ".join(f"{_cell(row, name):>13}" for name in names))
    for _, row in front.head(SHOWN_POINTS).iterrows():
        # ~ marks an estimate from few items
        shown = f"{row['candidate']}" if row["measured"] else f"{row['candidate']} ~"
        lines.append(f"  {shown:<{label}}" + "  ".join(f"{_cell(row, name):>13}" for name in names))
    if len(front) > SHOWN_POINTS:
        lines.append(f"  ... and {len(front) - SHOWN_POINTS} more: evomerge front {run.folder}")
    return lines


def front_text(run: RunData, request: FrontRequest = MEASURED) -> str:
    """Return what `evomerge front` prints: measured points, predicted points, the surrogates' errors."""
    answer = front_of(run, request)
    lines = [table_text(answer.frame())]
    if answer.knee is not None and len(run.objectives) > 1:
        volume = status_of(run)["hypervolume"]
        lines.append(f"knee: candidate {answer.knee}; hypervolume above the worst parents: {volume:.4g}")
    if answer.errors is not None:
        held = answer.candidates.count(None)  # predicted points are the rows without a candidate
        lines += ["", f"{held} points predicted by surrogates (measured: False; not evaluated):"]
        shown = ["objective", "complexity", "candidates", "r2", "left_out_r2", "left_out_error", "noise", "coverage"]
        lines.append(table_text(answer.errors[shown]))
    lines += [f"warning: {text}" for text in answer.warnings]
    if None in answer.candidates and not request.where:  # re-measuring chooses points without --where
        lines.append(f"score them: evomerge front {run.folder} --predicted {request.predicted} --remeasure")
    return "\n".join([*lines, *remeasured_lines(run)])


def estimate_lines(estimates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return how the estimates from few items compared with full answers, a line per objective."""
    lines = []
    for name, found in estimates.items():
        text = f"estimates   {name}: from {found['items']} items"
        if found["compared"]:  # finalists only, so that nothing can be compared before the end
            text += (
                f"; off by {100 * found['mean_absolute_error']:.1f} points on average over {found['compared']} "
                f"candidates answered in full (mean {100 * found['mean_error']:+.1f}), "
                f"{100 * found['covered']:.0f}% inside the 95% interval"
            )
        lines.append(text)
    return lines


def answer_flag_lines(run: RunData, number: int) -> list[str]:
    """Return a warning per objective in which many of a candidate's answers were cut off or held no answer."""
    what = {
        TRUNCATED: "were cut off by the limit of tokens; raise max_gen_toks if they should be longer",
        UNEXTRACTED: "could not be parsed by the task's filter",
        SHORTENED: "belong to prompts that were truncated to fit the context; use fewer few-shot examples",
    }
    fractions = run.answer_flags().get(number, {})
    return [
        f"note: {name}: {100 * fraction:.0f}% of the answers of candidate {number} {what[kind]}"
        for (kind, name), fraction in sorted(fractions.items())
        if fraction > WORTH_SAYING
    ]


def finals_lines(finals: list[Final], best: int) -> list[str]:
    """Return finalists and parents on held-out items; then the verdict on `best`, the winner by search items.

    The winner is the best by search items; choosing it by held-out items would bias its score upward.
    """
    label = max(len(final.name) for final in finals)
    in_points = all(final.in_points for final in finals)
    # a mean with layers or seconds has no unit
    sizes = [name for name in finals[0].scores if name not in finals[0].averaged]
    what = (
        "mean over the objectives, in points" + (f"; {', '.join(sizes)} left out" if sizes else "")
        if in_points
        else "gains: mean over objectives in their own units (perplexity: nats per token), without sizes"
    )
    lines = [f"Held-out items, not used in the search ({what}):"]
    for final in finals:
        line = f"  {final.name:<{label}}  {100 * final.score.value:6.2f} ± {100 * final.score.stderr:.2f}"
        if not in_points:  # a mean over different units has no meaning: one score per objective
            scores = (f"{name} {_with_error(score)}" for name, score in final.scores.items())
            line = f"  {final.name:<{label}}  {', '.join(scores)}"
        elif sizes:
            # sizes are exact, and shown beside the mean
            line += "".join(f", {name} {_with_error(final.scores[name])}" for name in sizes)
        if final.gain is not None:
            line += f"   {verdict(final, final.joint)}"
        lines.append(line)
    if sum(final.joint is not None for final in finals) > 1:  # a single finalist needs no correction
        lines.append("  (simultaneous 95% intervals over all finalists)")
    # chosen by search items alone: no selection bias
    winner = next((final for final in finals if final.number == best and final.gain is not None), None)
    return (
        lines
        if winner is None
        else [*lines, "", (f"Best candidate by search items, {winner.name}: {verdict(winner)}.")]
    )


def verdict(final: Final, joint: Difference | None = None) -> str:
    """Return one finalist's comparison with the best parent, in points, with its paired interval.

    Args:
        final: the finalist.
        joint: the gain with a simultaneous interval for all finalists, instead of its own.
    """
    gain = joint or final.gain  # the wider interval where several finalists are shown
    if gain is None:
        return "a parent"
    shown = _points if final.in_points else _plain
    interval = f"95% interval [{shown(gain.low)}, {shown(gain.high)}]"
    unit = " points" if final.in_points else ""
    if not gain.has_interval:  # one value per model, as for perplexity of a whole text
        way = "above" if gain.value > 0 else "below"
        return (
            f"{shown(abs(gain.value))}{unit} {way} {final.against}, no interval: an objective has one value per model"
        )
    if gain.low > 0:
        return f"better than {final.against} by {shown(gain.value)}{unit}, {interval}"
    if gain.high < 0:
        return f"worse than {final.against} by {shown(-gain.value)}{unit}, {interval}"
    sign = "+" if gain.value >= 0 else ""
    return f"not distinguishable from {final.against} ({sign}{shown(gain.value)}{unit}, {interval})"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _with_error(score: Score) -> str:
    return f"{score.value:.4g}" + (f" ± {score.stderr:.2g}" if score.stderr else "")


def _plain(value: float) -> str:
    return f"{value:.3g}"


def next_lines(run: RunData) -> list[str]:
    """Return the commands that make sense after a search."""
    out = f"{run.folder}-best"
    lines = [
        f"  evomerge export {run.folder} --to {out}",
        f"  evomerge front {run.folder} --plot front.png",
    ]
    if len(run.objectives) > 1:
        # an example that can be typed as it is
        preference = ",".join(f"{o.name}={2 if i == 0 else 1}" for i, o in enumerate(run.objectives[:2]))
        lines.append(f'  evomerge export {run.folder} --to {run.folder}-mine --pick "{preference}"')
    return lines


def clock(seconds: float) -> str:
    """Return a duration as short text.

    >>> clock(75), clock(7322)
    ('1m15s', '2h02m')
    """
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    return f"{total // 3600}h{total % 3600 // 60:02d}m"


def _cell(row: object, name: str) -> str:
    value, error = row[f"score.{name}"], row[f"stderr.{name}"]  # type: ignore[index]
    if abs(value) < 10:  # accuracies; other metrics can have five digits before the point
        return f"{value:>6.3f} ± {error:<4.2g}"[:13].rjust(13)
    return f"{value:.5g} ± {error:.2g}" if error < 100 else f"{value:.5g} ± {error:.0f}"  # a perplexity, or a length
