// The run as the page knows it: a fold of one snapshot and the events after it.
// No DOM, no clock, no network. The fold is idempotent: a duplicate changes nothing, a hole is
// reported as "gap" and changes nothing, and the caller asks the server again from `cursor()`.

import * as codepoints from "./codepoints.js";

export const ENDED_CALL = new Set(["cached", "done", "failed", "timeout", "cancelled", "skipped"]);
export const ENDED_RUN = new Set(["done", "degraded", "failed", "cancelled"]);
export const ANSWERED = new Set(["cached", "done"]);

const NUMBERS = [
  "input_tokens", "output_tokens", "usage_estimated", "cost_micro_usd", "first_token_ms",
  "duration_ms", "tokens_per_s", "finish_reason", "cached_age_s", "attempt",
];

/** A model from a snapshot (the JSON of GET /api/runs/{id}). `dirty` names what to draw. */
export function fromSnapshot(snapshot) {
  const model = structuredClone(snapshot);
  for (const call of model.calls) {
    call.text ??= "";
    call.rev ??= 0;
    call.points = codepoints.length(call.text);
  }
  const live = model.synthesis.live;
  if (live) live.points = codepoints.length(live.text ?? "");
  model.stop_requested = Boolean(model.stopping);
  model.synthesis.single = model.synthesis.state === "single";
  model.dirty = new Set(["run", "synthesis", "overlap"]);
  for (const call of model.calls) model.dirty.add(`call:${call.label}`);
  return model;
}

/** What this page already holds, as the first frame of a subscription. */
export function cursor(model) {
  const have = {};
  for (const call of model.calls) have[call.label] = [call.rev, call.points];
  const live = model.synthesis.live;
  if (live) have[`v${live.version}`] = [live.rev ?? 0, live.points];
  return { since: model.seq, have };
}

/**
 * Fold one event into `model`. Returns "applied", "duplicate" or "gap".
 * Text and overlap are transient: they carry the head's `seq` and are placed by their own address.
 */
export function apply(model, event) {
  const transient = TRANSIENT[event.type];
  if (transient) return transient(model, event);
  if (event.seq <= model.seq) return "duplicate";
  if (event.seq !== model.seq + 1) return "gap";
  const fold = FACTS[event.type];
  const outcome = fold ? fold(model, event) : undefined;
  if (outcome === "gap") return "gap";
  model.seq = event.seq;
  model.dirty.add("run");
  return "applied";
}

export const callOf = (model, label) => model.calls.find((call) => call.label === label);
export const versionOf = (model, version) =>
  model.synthesis.versions.find((row) => row.version === version);

/** The synthesized text as it stands, or null: what Copy copies and the API calls `answer`. */
export function answerText(model) {
  const { synthesis } = model;
  if (synthesis.single) return model.answer;
  if (synthesis.blocks.length) return synthesis.blocks.map((block) => block.md).join("\n\n");
  if (model.answer != null) return model.answer;
  if (synthesis.live?.kind === "draft" && synthesis.live.text) return synthesis.live.text;
  return null;
}

/** Totals over what is known so far; after the end, the server's own. */
export function totals(model) {
  if (ENDED_RUN.has(model.status)) return model.totals;
  const rows = [...model.calls, ...model.synthesis.versions];
  // What has not been heard from has no tokens, and so no price either.
  const known = rows.filter((row) => row.input_tokens || row.output_tokens);
  const sum = (field) => known.reduce((total, row) => total + (row[field] ?? 0), 0);
  const unpriced = known.some((row) => row.cost_micro_usd == null);
  return {
    ...model.totals,
    input_tokens: sum("input_tokens"),
    output_tokens: sum("output_tokens"),
    cost_micro_usd: unpriced ? null : sum("cost_micro_usd"),
  };
}

// Text -----------------------------------------------------------------------------------------

/** Append `event.text` at its address to `stream`; cuts what is already there. */
function append(stream, event) {
  const rev = stream.rev ?? 0;
  if (event.rev < rev) return "duplicate";
  if (event.rev > rev) {
    if (event.offset !== 0) return "gap";
    stream.rev = event.rev;
    stream.text = "";
    stream.points = 0;
  }
  if (event.offset > stream.points) return "gap";
  const points = codepoints.length(event.text);
  if (event.offset + points <= stream.points) return "duplicate";
  stream.text += codepoints.drop(event.text, stream.points - event.offset);
  stream.points = event.offset + points;
  return "applied";
}

const TRANSIENT = {
  "call.chunk"(model, event) {
    const call = callOf(model, event.call);
    if (!call) return "gap";
    const outcome = append(call, event);
    if (outcome === "applied") model.dirty.add(`call:${call.label}`);
    return outcome;
  },

  "synthesis.delta"(model, event) {
    const live = model.synthesis.live;
    if (!live || live.version !== event.version) {
      // Text of a version that has already ended is a duplicate; of one not begun, a hole.
      return versionOf(model, event.version) ? "duplicate" : "gap";
    }
    const outcome = append(live, event);
    if (outcome === "applied") model.dirty.add("synthesis");
    return outcome;
  },

  "overlap.updated"(model, event) {
    model.overlap = event.overlap;
    model.dirty.add("overlap");
    return "applied";
  },
};

// Facts ----------------------------------------------------------------------------------------

function numbers(call, event) {
  for (const field of NUMBERS) if (event[field] !== undefined) call[field] = event[field];
}

/** Whether all text of an ending call is here: it is sent before the fact that ends the call. */
function whole(call, event) {
  // The last attempt said nothing; what is shown is of an attempt before it.
  if (event.chars === 0) [call.text, call.points] = ["", 0];
  return event.chars == null || call.points === event.chars;
}

function withCall(fold) {
  return (model, event) => {
    const call = callOf(model, event.call);
    if (!call) return "gap";
    const outcome = fold(call, event, model);
    model.dirty.add(`call:${call.label}`);
    model.dirty.add("synthesis");
    return outcome;
  };
}

function endVersion(model, event, state) {
  const synthesis = model.synthesis;
  const row = versionOf(model, event.version);
  if (row) {
    row.state = state;
    for (const field of [
      "input_tokens", "output_tokens", "cost_micro_usd", "first_token_ms", "duration_ms",
    ]) if (event[field] !== undefined) row[field] = event[field];
  }
  if (synthesis.live?.version === event.version) synthesis.live = null;
  model.dirty.add("synthesis");
  return row;
}

/** What a reader is told of the synthesis: follows from its versions, by the server's own rule. */
function settle(model) {
  const { synthesis } = model;
  const ended = ENDED_RUN.has(model.status);
  const current = versionOf(model, synthesis.version);
  const writing = !ended && synthesis.versions.some((row) => row.state === "running");
  const late = synthesis.versions.some((row) => row.late && row.state === "applied");
  synthesis.state = writing ? (current ? "revising" : "drafting")
    : synthesis.final_version != null && current ? (current.late ? "amended" : "final")
    : synthesis.single ? "single"
    : current ? "draft"
    : !ended ? "waiting"
    : synthesis.versions.length || model.status === "failed" ? "failed" : "none";
  const closed = synthesis.final_version != null || synthesis.single;
  model.answer_state = model.answer == null ? "none"
    : !closed ? "provisional" : late ? "amended" : "final";
  model.dirty.add("synthesis");
}

const FACTS = {
  "run.started"(model, event) {
    model.deadline_s = event.deadline_s ?? model.deadline_s;
  },

  "call.started": withCall((call, event, model) => {
    if (model.status === "queued") model.status = "running";
    call.state = event.attempt > 1 ? "retrying" : "waiting";
    call.attempt = event.attempt;
    call.started_ms ??= event.at_ms;
    if (event.rev > call.rev) [call.rev, call.text, call.points] = [event.rev, "", 0];
  }),

  "call.attempt_failed": withCall((call, event) => {
    numbers(call, event);
    if (event.wait_ms == null) return;
    call.state = "retrying";
    call.attempt = event.attempt + 1;
  }),

  "call.first_token": withCall((call, event) => {
    call.state = "streaming";
    call.first_token_ms = event.first_token_ms;
  }),

  "call.finished": withCall((call, event) => {
    if (!whole(call, event)) return "gap";
    call.state = event.cached ? "cached" : "done";
    numbers(call, event);
    return "applied";
  }),

  "call.failed": withCall((call, event) => {
    if (!whole(call, event)) return "gap";
    call.state = event.state;
    call.reason = event.kind;
    call.message = event.message;
    numbers(call, event);
    return "applied";
  }),

  "call.cancel_requested": withCall((call) => {
    call.stopping = true;
  }),

  "synthesis.started"(model, event) {
    const { synthesis } = model;
    synthesis.model = event.model ?? synthesis.model;
    // What a patch writes is edits, not text for readers; its blocks come with its end.
    synthesis.live = event.kind === "patch" ? null
      : { version: event.version, kind: event.kind, rev: 0, text: "", points: 0 };
    synthesis.versions.push({
      version: event.version, kind: event.kind, trigger: event.trigger, sources: event.sources,
      late: event.late ?? false, state: "running", reason: null, started_ms: event.at_ms,
      first_token_ms: null, duration_ms: null, input_tokens: 0, output_tokens: 0,
      cost_micro_usd: null, blocks: [],
    });
    settle(model);
  },

  "synthesis.revised"(model, event) {
    const { synthesis } = model;
    const row = endVersion(model, event, "applied");
    if (row) {
      row.blocks = event.blocks;
      row.late = event.late ?? row.late;
    }
    synthesis.blocks = event.blocks;
    synthesis.changed = event.changed ?? [];
    synthesis.version = event.version;
    model.answer = answerText(model);
    settle(model);
  },

  "synthesis.failed"(model, event) {
    const row = endVersion(model, event, "failed");
    if (row) {
      row.reason = event.error_kind;
      row.duration_ms ??= event.at_ms - row.started_ms;
    }
    settle(model);
  },

  "synthesis.final"(model, event) {
    const { synthesis } = model;
    synthesis.final_version = event.version;
    synthesis.single = event.mode === "single";
    synthesis.live = null;
    model.degraded = event.degraded;
    model.answer = synthesis.single ? callOf(model, event.label)?.text ?? null : answerText(model);
    settle(model);
  },

  "run.stop_requested"(model) {
    model.stop_requested = true;
    for (const call of model.calls) model.dirty.add(`call:${call.label}`);
  },

  "run.finished"(model, event) {
    model.status = event.status;
    model.reason = event.reason;
    model.ended_at = event.at;
    for (const field of [
      "cost_micro_usd", "input_tokens", "output_tokens", "ttfs_ms", "ttms_ms", "ttf_ms",
      "duration_ms",
    ]) if (event[field] !== undefined) model.totals[field] = event[field];
    model.degraded = event.status === "degraded" || model.degraded;
    model.synthesis.live = null;
    for (const call of model.calls) model.dirty.add(`call:${call.label}`);
    settle(model);
  },
};
