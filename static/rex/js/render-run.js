// The bar above everything: state, how many answered, time, tokens, cost, connection, Stop.
// And the two lines for screen readers, which speak at boundaries and never per token.

import { stopRun } from "./commands.js";
import { part, show, state, text } from "./dom.js";
import { count, duration, money } from "./format.js";
import { ANSWERED, ENDED_RUN, totals } from "./model.js";
import { runWord } from "./words.js";

const SPEAK_EVERY_MS = 5_000;

export class RunBar {
  constructor(root, { runId, nowMs }) {
    this.root = root;
    this.runId = runId;
    this.nowMs = nowMs;
    // Readers who may not change anything have no such button.
    this.stopButton = part(root, "stop-run");
    this.stopButton?.addEventListener("click", (event) => {
      event.preventDefault(); // the form is for readers without scripts
      this.#stop();
    });
  }

  draw(model) {
    const ended = ENDED_RUN.has(model.status);
    const answered = model.calls.filter((call) => ANSWERED.has(call.state)).length;
    const sum = totals(model);
    const mark = { queued: "queued", running: "streaming", degraded: "degraded" };
    state(part(this.root, "run-state"), mark[model.status] ?? model.status, runWord(model.status));
    text(part(this.root, "answers"), `${answered} of ${model.calls.length}`);
    text(part(this.root, "tokens"), count(sum.input_tokens + sum.output_tokens || null));
    text(part(this.root, "cost"), money(sum.cost_micro_usd));
    show(part(this.root, "stop-form"), !ended);
    show(part(this.root, "replay-form"), ended);
    if (model.stop_requested && !ended) this.#stopping();
    text(part(this.root, "message"), model.message);
    show(part(this.root, "message"), ended && Boolean(model.message));
    this.tick(model);
    document.title = ended ? `${runWord(model.status)} · Rex`
      : `(${answered}/${model.calls.length}) ${runWord(model.status)} · Rex`;
  }

  tick(model) {
    const ended = ENDED_RUN.has(model.status);
    text(part(this.root, "elapsed"), duration(ended ? model.totals.duration_ms : this.nowMs()));
  }

  connection(name) {
    const words = {
      live: "live", reconnecting: "reconnecting…", offline: "offline, showing what arrived",
      auth: "signed out", not_found: "not found", ended: "",
    };
    const node = part(this.root, "connection");
    node.dataset.s = name;
    text(part(node, "words"), words[name] ?? name);
    show(node, name !== "ended");
  }

  #stopping() {
    if (!this.stopButton) return;
    this.stopButton.setAttribute("aria-disabled", "true");
    text(part(this.stopButton, "words"), "Stopping…");
  }

  async #stop() {
    if (this.stopButton.getAttribute("aria-disabled") === "true") return;
    this.#stopping();
    try {
      await stopRun(this.runId);
    } catch (error) {
      this.stopButton.removeAttribute("aria-disabled");
      text(part(this.stopButton, "words"), "Stop run");
      alarm(`The run could not be stopped. ${error.message}`);
    }
  }
}

/** Spoken at once, and seen: something needs the reader. */
export function alarm(words) {
  const node = document.getElementById("alarm");
  node.textContent = words;
  node.hidden = !words;
}

/** Polite announcements, at most one in five seconds; the newest of those that waited wins. */
export class Announcer {
  constructor(node) {
    this.node = node;
    this.last = -Infinity;
    this.said = new Set();
  }

  say(key, words) {
    if (this.said.has(key)) return;
    this.said.add(key);
    if (this.silent) return;
    this.next = words;
    const wait = Math.max(0, this.last + SPEAK_EVERY_MS - performance.now());
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.node.textContent = this.next;
      this.last = performance.now();
    }, wait);
  }

  /** What the page says already when it is loaded need not be said again. */
  prime(model) {
    this.silent = true;
    this.observe(model);
    this.silent = false;
  }

  /** What changed between two looks at the run, in one sentence each. */
  observe(model) {
    const answered = model.calls.filter((call) => ANSWERED.has(call.state)).length;
    const total = model.calls.length;
    if (answered) this.say(`answered:${answered}`, `${answered} of ${total} answers ready.`);
    const { version, final_version: final } = model.synthesis;
    if (version) this.say(`version:${version}`, `Synthesis version ${version} ready.`);
    if (final != null) this.say("final", "The synthesis is final.");
    if (ENDED_RUN.has(model.status)) {
      const { duration_ms: ms, cost_micro_usd: cost } = model.totals;
      this.say("ended", `Run ${runWord(model.status)} after ${duration(ms)}, cost ${money(cost)}.`);
    }
  }
}
