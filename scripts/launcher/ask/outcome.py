"""What a run's end means for a shell: exit codes and the last line. Pure."""

from collections.abc import Mapping
from typing import Any

OK, FAILED, USAGE, PARTIAL, QUOTA, TIMEOUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


def exit_code(status: str, reason: str) -> int:
    """The exit code of a run that ended with this status and reason code."""
    if status == "done":
        return OK
    if status == "degraded":
        return PARTIAL
    if status == "cancelled":
        return INTERRUPTED
    return exit_code_of_reason(reason)


def exit_code_of_reason(reason: str) -> int:
    """The exit code of a failure with this reason code."""
    if reason.startswith("quota.") or reason == "budget.run":
        return QUOTA
    if reason == "deadline" or reason.startswith("timeout."):
        return TIMEOUT
    return FAILED


def exit_code_of_problem(status: int, code: str) -> int:
    """The exit code when the server refused the question."""
    if status == 429 or code.startswith(("quota.", "budget.")):
        return QUOTA
    # Refusals of what was asked, as against refusals of who asks.
    return USAGE if status in (400, 413, 422) else FAILED


def summary(run: Mapping[str, Any], url: str) -> str:
    """One line on a run that ended, from its API object; ``url`` is empty where no page stays."""
    answered = sum(call["state"] in ("done", "cached") for call in run["calls"])
    totals = run["totals"]
    parts = [run["status"] if not run["reason"] else f"{run['status']} ({run['reason']})"]
    if totals["duration_ms"] is not None:
        parts.append(f"{totals['duration_ms'] / 1000:.1f} s")
    parts.append(f"{answered} of {len(run['calls'])} answers")
    if totals["output_tokens"] is not None:
        parts.append(f"{totals['output_tokens']} tokens")
    parts.append(money(totals["cost_micro_usd"]))
    return " · ".join([*parts, url] if url else parts)


def age(seconds: int) -> str:
    """How old an answer is: ``12 s old``, ``3 h old``; the page says it in the same words."""
    for size, unit in ((172_800, ""), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} old" if unit else f"{seconds // 86_400} days old"
    return "just now"


def money(micro_usd: int | None) -> str:
    """``$0.0031``; an unknown price is a dash, never a wrong number."""
    if micro_usd is None:
        return "—"
    usd = micro_usd / 1_000_000
    if usd == 0:
        return "$0"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"
