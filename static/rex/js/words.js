// States in words. Decisions only; format.js prints the numbers, the render modules draw.
// The server says the same in rex_format.py; tests/frontend/words.json holds both to it.

import { age, duration, list } from "./format.js";
import { ANSWERED, ENDED_CALL, ENDED_RUN } from "./model.js";

const RUN = {
  queued: "queued", running: "answering", done: "done", degraded: "degraded", failed: "failed",
  cancelled: "stopped",
};

export const runWord = (status) => RUN[status] ?? status;

export function callWords(call) {
  switch (call.state) {
    case "waiting": return "thinking";
    case "streaming": return "answering";
    case "retrying": return `retrying, attempt ${call.attempt}`;
    case "cached": return `cached, ${age(call.cached_age_s ?? 0)}`;
    case "done": return `done in ${duration(call.duration_ms)}`;
    case "timeout": return "timed out";
    case "cancelled": return call.reason === "stop.superseded" ? "not needed" : "stopped";
    default: return call.state;
  }
}

/** What a reader should know of how an answer ended, or "". */
export function callNote(call) {
  if (!ENDED_CALL.has(call.state)) return "";
  if (!ANSWERED.has(call.state)) return call.message;
  return call.finish_reason === "length" ? "It reached its length limit and ends there." : "";
}

const VERSION_KIND = { draft: "Draft", patch: "Patch", rewrite: "Rewrite" };
const VERSION_STATE = {
  running: "being written", rejected: "did not apply", failed: "failed", applied: "",
};

export function versionWords(version) {
  const parts = [`${VERSION_KIND[version.kind] ?? version.kind} from ${list(version.sources)}`];
  if (version.late) parts.push("late");
  if (VERSION_STATE[version.state]) parts.push(VERSION_STATE[version.state]);
  else if (version.duration_ms != null) parts.push(duration(version.duration_ms));
  return parts.join(", ");
}

/** When the synthesis began to be read, against the answers: the first complete one, or the last. */
export function paceSentence(model) {
  const { ttfs_ms: first, ttf_ms: final } = model.totals;
  if (first == null) return "";
  const ends = model.calls.filter((call) => ANSWERED.has(call.state))
    .map((call) => call.started_ms + call.duration_ms);
  const which = Math.min(...ends) > first ? "first" : "last";
  const lead = (which === "first" ? Math.min(...ends) : Math.max(...ends)) - first;
  const ahead = ends.length && lead > 0
    ? `, ${duration(lead)} before the ${which} answer was complete` : "";
  const end = final != null ? ` Final after ${duration(final)}.` : "";
  return `First text of the synthesis after ${duration(first)}${ahead}.${end}`;
}

const sourcesOf = (model) => {
  const synthesis = model.synthesis;
  const shown = synthesis.versions.find((row) => row.version === synthesis.version);
  return shown ? shown.sources : [...new Set(synthesis.blocks.flatMap((block) => block.sources))];
};

/** Where the synthesis stands and what it is built on, as one sentence. */
export function synthesisSentence(model) {
  const { synthesis, calls } = model;
  const answered = calls.filter((call) => ANSWERED.has(call.state)).length;
  const ended = ENDED_RUN.has(model.status);
  const progress = `${answered} of ${calls.length} answers complete`;
  const writing = synthesis.versions.find((row) => row.state === "running");
  const built = list(sourcesOf(model));

  if (ended && model.status === "cancelled") {
    if (synthesis.state === "single") return "Stopped. This is one answer, word for word.";
    return built ? `Stopped. This is what was written so far, built on ${built}.`
      : "Stopped before anything was written.";
  }
  switch (synthesis.state) {
    case "waiting":
      return calls.length === 1 ? "One model was asked. Its answer appears below as it comes."
        : "A first draft begins as soon as two answers have something to say.";
    case "drafting":
      return calls.every((call) => ENDED_CALL.has(call.state))
        ? `Writing a draft from ${list(writing?.sources ?? [])}.`
        : `Writing a first draft from ${list(writing?.sources ?? [])} while models still answer.`;
    case "draft":
      return `Provisional, built on ${built}. ${progress}.`;
    case "revising": {
      const known = new Set(sourcesOf(model));
      const added = (writing?.sources ?? []).filter((label) => !known.has(label));
      return added.length ? `Provisional, adding what ${list(added)} says. ${progress}.`
        : `Provisional, being revised. ${progress}.`;
    }
    case "final":
      return model.degraded ? `Final but degraded, built on ${built} only.`
        : `Final, built on ${built}.`;
    case "amended":
      return `Final, amended after a late answer, built on ${built}.`;
    case "single":
      if (calls.length === 1) return "One model was asked. This is its answer, word for word.";
      return answered > 1 ? "Degraded: nothing could be written. This is one answer, word for word."
        : "Degraded: only one model answered. This is its answer, word for word.";
    case "failed":
      return "No answer could be written.";
    default:
      return ended ? "There is no synthesis for this run." : "";
  }
}
