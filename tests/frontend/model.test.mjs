// The fold is held to a run that was made up, told badly, and compared with what really happened:
// frames cut anywhere, sent twice, overlapping, lost, over sockets that drop at any moment.

import assert from "node:assert/strict";
import { test } from "node:test";

import { apply, answerText, cursor, fromSnapshot, totals } from "../../static/rex/js/model.js";

/** A small seeded generator (mulberry32): a failing seed can be run again. */
function random(seed) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n) => Math.floor(next() * n);
  return { next, below, pick: (list) => list[below(list.length)], chance: (p) => next() < p };
}

const LETTERS = ["a", "b", " ", "\n", "é", "漢", "🙂", "👩‍🔬", "# ", "`", "\u0301"];

function call(label) {
  return {
    label, model: `local/${label}`, provider: "local", state: "queued", reason: null, message: "",
    attempt: 1, stopping: false, started_ms: null, first_token_ms: null, duration_ms: null,
    tokens_per_s: null, input_tokens: 0, output_tokens: 0, usage_estimated: false,
    cost_micro_usd: null, finish_reason: null, cached_age_s: null, rev: 0, text: "",
  };
}

function accepted(labels) {
  return {
    id: "run", url: "/runs/run/", seq: 1, status: "queued", reason: null, message: "",
    prompt: "?", pipeline: { name: "synthesis", version: 1, policy: "balanced" },
    created_at: "2026-11-23T12:00:00.000Z", started_at: null, ended_at: null,
    now: "2026-11-23T12:00:00.000Z", deadline_s: 60, answer: null, answer_state: "none",
    degraded: false,
    totals: {
      duration_ms: null, input_tokens: 0, output_tokens: 0, cost_micro_usd: 0, ttfs_ms: null,
      ttms_ms: null, ttf_ms: null,
    },
    calls: labels.map(call),
    synthesis: {
      state: "waiting", version: 0, final_version: null, model: "", blocks: [], live: null,
      versions: [],
    },
    overlap: null,
  };
}

/** The server: what really happened (`truth`, kept by hand, not folded) and the log that says so. */
class Server {
  constructor(r) {
    this.r = r;
    this.labels = ["A", "B", "C", "D"].slice(0, 1 + r.below(4));
    this.truth = accepted(this.labels);
    this.log = [{ seq: 1, type: "run.started" }];
    this.open = new Map(); // stream → {rev, text: [code points]}
    this.streams = new Map();
    this.version = 0;
    this.atMs = 0;
  }

  fact(type, fields) {
    this.atMs += 1 + this.r.below(50);
    this.truth.seq += 1;
    const at = new Date(Date.parse("2026-11-23T12:00:00.000Z") + this.atMs).toISOString();
    this.log.push({ seq: this.truth.seq, type, at, at_ms: this.atMs, ...fields });
    return this.atMs;
  }

  /** One thing happens. Returns false once the run has ended. */
  step() {
    const { r, truth } = this;
    const alive = truth.calls.filter((row) => !["cached", "done", "failed"].includes(row.state));
    const running = truth.synthesis.versions.find((row) => row.state === "running");
    if (!alive.length && !running) return this.end();
    if (running && r.chance(0.3)) return this.synthesize(running);
    if (!running && r.chance(0.08) && truth.calls.some((row) => row.text)) return this.begin();
    if (r.chance(0.05)) this.truth.overlap = { agreed: [{ text: String(r.below(99)), labels: [] }] };
    if (alive.length) this.advance(r.pick(alive));
    return true;
  }

  advance(row) {
    const { r } = this;
    if (row.state === "queued") {
      row.state = "waiting";
      row.started_ms = this.fact("call.started", { call: row.label, attempt: 1, rev: 0 });
      if (this.truth.status === "queued") this.truth.status = "running";
      this.streams.set(row.label, { rev: 0, text: [], attempt: 1 });
      this.open.set(row.label, this.streams.get(row.label));
      return;
    }
    const stream = this.streams.get(row.label);
    if (row.state === "retrying" && row.attempt > stream.attempt) {
      stream.attempt = row.attempt;
      if (stream.text.length) [stream.rev, stream.text] = [stream.rev + 1, []];
      this.fact("call.started", { call: row.label, attempt: row.attempt, rev: stream.rev });
    } else if (row.state === "waiting" || row.state === "retrying") {
      row.state = "streaming";
      row.first_token_ms = 7;
      this.fact("call.first_token", { call: row.label, first_token_ms: 7 });
    } else if (r.chance(0.04)) {
      // One of two that were under way failed: the other goes on, and nothing changes but the sums.
      const alone = r.chance(0.7);
      row.input_tokens += 2;
      this.fact("call.attempt_failed", {
        call: row.label, attempt: row.attempt, kind: "overloaded", input_tokens: row.input_tokens,
        wait_ms: alone ? 40 : null,
      });
      if (alone) [row.state, row.attempt] = ["retrying", row.attempt + 1];
    } else if (r.chance(0.06)) {
      row.state = r.pick(["done", "cached", "failed"]);
      const known = { input_tokens: 3, output_tokens: 5, cost_micro_usd: 8, duration_ms: 40 };
      Object.assign(row, known);
      const chars = stream.text.length;
      if (row.state !== "failed") {
        const cached = row.state === "cached";
        if (cached) row.cached_age_s = 7;
        this.fact("call.finished", {
          call: row.label, chars, cached, cached_age_s: row.cached_age_s, attempt: row.attempt,
          ...known,
        });
      } else {
        Object.assign(row, { reason: "server_error", message: "It failed." });
        this.fact("call.failed", {
          call: row.label, state: "failed", kind: "server_error", message: "It failed.", chars,
          ...known,
        });
      }
      this.open.delete(row.label);
    } else {
      for (let n = 1 + r.below(6); n > 0; n -= 1) stream.text.push(...r.pick(LETTERS));
    }
    row.rev = stream.rev;
    row.text = stream.text.join("");
  }

  begin() {
    const { synthesis } = this.truth;
    this.version += 1;
    const kind = synthesis.blocks.length ? this.r.pick(["patch", "rewrite"]) : "draft";
    const body = { version: this.version, kind, sources: ["A"], trigger: "x", late: false };
    const started_ms = this.fact("synthesis.started", { ...body, model: "local/editor" });
    synthesis.model = "local/editor";
    synthesis.versions.push({ ...body, state: "running", reason: null, started_ms, blocks: [] });
    this.streams.set(`v${this.version}`, { rev: 0, text: [] });
    if (kind !== "patch") this.open.set(`v${this.version}`, this.streams.get(`v${this.version}`));
    return true;
  }

  synthesize(row) {
    const stream = this.streams.get(`v${row.version}`);
    if (this.r.chance(0.7)) {
      stream.text.push(...this.r.pick(LETTERS));
      return true;
    }
    this.open.delete(`v${row.version}`);
    if (this.r.chance(0.2)) {
      row.state = "failed";
      row.reason = "incomplete";
      this.fact("synthesis.failed", { version: row.version, kind: row.kind, error_kind: "incomplete" });
      return true;
    }
    row.state = "applied";
    row.blocks = [{ id: "b1", md: `version ${row.version}`, sources: ["A"], disputes: [] }];
    this.truth.synthesis.blocks = row.blocks;
    this.truth.synthesis.version = row.version;
    this.fact("synthesis.revised", { version: row.version, blocks: row.blocks, changed: ["b1"] });
    return true;
  }

  end() {
    const { synthesis } = this.truth;
    if (this.truth.status === "done") return false;
    if (synthesis.version) {
      synthesis.final_version = synthesis.version;
      this.fact("synthesis.final", {
        version: synthesis.version, mode: "promote", degraded: false, sources: ["A"],
      });
    }
    this.truth.status = "done";
    this.truth.totals = { ...this.truth.totals, input_tokens: 11, output_tokens: 13, duration_ms: this.atMs };
    this.fact("run.finished", {
      status: "done", reason: null, input_tokens: 11, output_tokens: 13, duration_ms: this.atMs,
    });
    return false;
  }

  /** Everything after `position`, as frames: cut anywhere, sometimes reaching back too far. */
  read(position) {
    const events = [];
    const send = (stream) => {
      const { rev, text } = this.streams.get(stream);
      const [haveRev, offset] = position.have[stream] ?? [0, 0];
      let at = haveRev === rev ? Math.min(offset, text.length) : 0;
      if (at === text.length && haveRev === rev) return;
      at = Math.max(0, at - this.r.below(4)); // a part the reader has already
      do {
        const piece = text.slice(at, at + 1 + this.r.below(9));
        const address = stream.startsWith("v")
          ? { type: "synthesis.delta", version: Number(stream.slice(1)) }
          : { type: "call.chunk", call: stream };
        if (piece.length) events.push({ ...address, seq: position.since, rev, offset: at, text: piece.join("") });
        at += piece.length || 1;
      } while (at < text.length);
      position.have[stream] = [rev, text.length];
    };
    for (const fact of this.log.filter((row) => row.seq > position.since)) {
      if (fact.type === "call.finished" || fact.type === "call.failed") send(fact.call);
      if (fact.type === "synthesis.revised") {
        const row = this.truth.synthesis.versions.find((each) => each.version === fact.version);
        if (row.kind !== "patch") send(`v${fact.version}`);
      }
      events.push(fact);
      position.since = fact.seq;
    }
    for (const stream of this.open.keys()) send(stream);
    if (this.truth.overlap) {
      events.push({ type: "overlap.updated", seq: position.since, overlap: this.truth.overlap });
    }
    const frames = [];
    while (events.length) frames.push(events.splice(0, 1 + this.r.below(5)));
    return frames;
  }
}

/** What must be equal in the end: everything a reader sees, nothing the page keeps for itself. */
function seen(model) {
  // Without text there is nothing that a rev would address.
  const calls = model.calls.map(({ points, ...row }) => ({ ...row, rev: row.text ? row.rev : 0 }));
  const versions = model.synthesis.versions.map((row) => ({
    version: row.version, kind: row.kind, state: row.state, sources: row.sources,
    blocks: row.blocks, reason: row.reason, started_ms: row.started_ms,
  }));
  const { blocks, version, final_version } = model.synthesis;
  return {
    seq: model.seq, status: model.status, totals: model.totals, overlap: model.overlap, calls,
    synthesis: { blocks, version, final_version, versions },
  };
}

function play(seed) {
  const r = random(seed);
  const server = new Server(r);
  const counts = { gaps: 0, duplicates: 0, connections: 0 };
  let model = fromSnapshot(structuredClone(server.truth));
  let position = null;
  let wire = [];
  let happening = true;
  for (let steps = 0; ; steps += 1) {
    assert.ok(steps < 50_000, `seed ${seed} never came to an end`);
    if (happening && r.chance(0.7)) happening = server.step();
    if (!position && r.chance(0.5)) {
      position = cursor(model);
      wire = [];
      counts.connections += 1;
    }
    if (position && r.chance(0.4)) wire.push(...server.read(position));
    if (wire.length && r.chance(0.05)) wire.splice(r.below(wire.length), 1); // a frame is lost
    if (position && wire.length) {
      const frame = wire.shift();
      for (const event of r.chance(0.1) ? [...frame, ...frame] : frame) {
        const outcome = apply(model, structuredClone(event));
        if (outcome === "duplicate") counts.duplicates += 1;
        if (outcome === "gap") {
          counts.gaps += 1;
          position = null;
          break;
        }
      }
    }
    if (position && r.chance(0.03)) position = null; // the socket drops, with what was in flight
    if (r.chance(0.01)) model = fromSnapshot(JSON.parse(JSON.stringify({ // the page is reloaded
      ...structuredClone(server.truth), synthesis: snapshotSynthesis(server),
    }))), position = null;
    const idle = !wire.length && position && position.since === server.truth.seq;
    if (!happening && idle && model.seq === server.truth.seq) break;
  }
  for (const event of server.read(cursor(model)).flat()) apply(model, event);
  assert.deepEqual(seen(model), seen({ ...server.truth }), `seed ${seed}`);
  return counts;
}

/** The synthesis as the server's snapshot gives it, with the text on its way. */
function snapshotSynthesis(server) {
  const synthesis = structuredClone(server.truth.synthesis);
  const writing = synthesis.versions.find((row) => row.state === "running");
  if (writing && writing.kind !== "patch") {
    const { rev, text } = server.streams.get(`v${writing.version}`);
    synthesis.live = {
      version: writing.version, kind: writing.kind, rev,
      text: text.join(""),
    };
  }
  return synthesis;
}

test("however a run is told, the page ends with what happened", () => {
  const sum = { gaps: 0, duplicates: 0, connections: 0 };
  for (let seed = 1; seed <= 1500; seed += 1) {
    const counts = play(seed);
    for (const name of Object.keys(sum)) sum[name] += counts[name];
  }
  // The schedules really were bad ones.
  assert.ok(sum.gaps > 500 && sum.duplicates > 5000 && sum.connections > 5000, JSON.stringify(sum));
});

const started = () => {
  const model = fromSnapshot(accepted(["A", "B"]));
  apply(model, { seq: 2, type: "call.started", at: "2026-11-23T12:00:00.040Z", at_ms: 40, call: "A", attempt: 1 });
  return model;
};
const chunk = (offset, text, rev = 0) => ({ seq: 2, type: "call.chunk", call: "A", rev, offset, text });

test("offsets count code points, so an emoji is one and nothing shifts after it", () => {
  const model = started();
  assert.equal(apply(model, chunk(0, "🙂👍")), "applied");
  assert.equal(apply(model, chunk(2, "ok")), "applied");
  assert.equal(model.calls[0].text, "🙂👍ok");
  assert.deepEqual(cursor(model).have.A, [0, 4]);
});

test("of a piece that overlaps, only what is new is taken, even inside emoji", () => {
  const model = started();
  apply(model, chunk(0, "🙂👍a"));
  assert.equal(apply(model, chunk(1, "👍a🚀b")), "applied");
  assert.equal(model.calls[0].text, "🙂👍a🚀b");
});

test("a piece with a hole before it is refused and changes nothing", () => {
  const model = started();
  apply(model, chunk(0, "abc"));
  assert.equal(apply(model, chunk(4, "e")), "gap");
  assert.equal(model.calls[0].text, "abc");
});

test("a new attempt replaces the text of the last, and a late piece of the old is dropped", () => {
  const model = started();
  apply(model, chunk(0, "first"));
  assert.equal(apply(model, chunk(0, "second", 1)), "applied");
  assert.equal(apply(model, chunk(5, " more", 0)), "duplicate");
  assert.equal(model.calls[0].text, "second");
});

test("a call that ended with more text than has come is a gap, so the rest is asked for", () => {
  const model = started();
  apply(model, chunk(0, "half"));
  const end = { seq: 3, type: "call.finished", at: "2026-11-23T12:00:01.000Z", at_ms: 1000, call: "A", chars: 8 };
  assert.equal(apply(model, end), "gap");
  assert.equal(model.calls[0].state, "waiting");
  apply(model, chunk(4, " and"));
  assert.equal(apply(model, end), "applied");
  assert.equal(model.calls[0].state, "done");
});

test("a fact out of its turn is a gap; one seen before is a duplicate", () => {
  const model = started();
  assert.equal(apply(model, { seq: 4, type: "run.stop_requested", at: "", at_ms: 1 }), "gap");
  assert.equal(apply(model, { seq: 2, type: "call.started", call: "A", attempt: 9 }), "duplicate");
  assert.equal(model.calls[0].attempt, 1);
});

test("a fact of a kind this page does not know moves it on all the same", () => {
  const model = started();
  assert.equal(apply(model, { seq: 3, type: "call.dreamt", at: "", at_ms: 1 }), "applied");
  assert.equal(model.seq, 3);
});

test("a late version amends: its blocks are the answer, and the state says so", () => {
  const model = started();
  const revise = (seq, version, late) => {
    apply(model, { seq, type: "synthesis.started", at: "", at_ms: 1, version, kind: "draft", sources: ["A"], late });
    apply(model, { seq: seq + 1, type: "synthesis.revised", at: "", at_ms: 2, version, late,
      blocks: [{ id: "b1", md: `v${version}`, sources: ["A"], disputes: [] }], changed: [] });
  };
  revise(3, 1, false);
  assert.equal(model.synthesis.state, "draft");
  apply(model, { seq: 5, type: "synthesis.final", at: "", at_ms: 3, version: 1, mode: "promote", degraded: false, sources: ["A"] });
  assert.deepEqual([model.synthesis.state, model.answer_state], ["final", "final"]);
  revise(6, 2, true);
  assert.deepEqual([model.synthesis.state, model.answer_state], ["amended", "amended"]);
  assert.equal(answerText(model), "v2");
});

test("a call without a price makes the total unknown, not smaller", () => {
  const model = started();
  model.status = "running";
  Object.assign(model.calls[0], { input_tokens: 5, output_tokens: 5, cost_micro_usd: 10 });
  assert.equal(totals(model).cost_micro_usd, 10);
  Object.assign(model.calls[1], { input_tokens: 5, output_tokens: 5, cost_micro_usd: null });
  assert.equal(totals(model).cost_micro_usd, null);
  assert.equal(totals(model).output_tokens, 10);
});
