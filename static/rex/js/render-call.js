// One answer's card. The markup is the server's (partials/call.html); this keeps it current.

import { stopCall } from "./commands.js";
import { copy, flash, part, show, state, text } from "./dom.js";
import { Follow } from "./follow.js";
import { count, duration, money, speed } from "./format.js";
import { Incremental } from "./markdown.js";
import { ENDED_CALL, ENDED_RUN } from "./model.js";
import { callNote, callWords } from "./words.js";

/** Below this many milliseconds of text a guessed speed is noise. */
const SPEED_AFTER_MS = 400;
const CHARS_PER_TOKEN = 4;

export class CallCard {
  constructor(root, { runId, nowMs, alarm, mayStop }) {
    this.root = root;
    this.mayStop = mayStop;
    this.label = root.dataset.call;
    this.nowMs = nowMs;
    this.body = part(root, "body");
    this.follow = new Follow(this.body, part(root, "newest"));
    this.stopButton = part(root, "stop");
    this.rev = null;
    this.finished = false;
    this.source = "";
    part(root, "copy").addEventListener("click", (event) => this.#copy(event.currentTarget));
    part(root, "expand").addEventListener("click", (event) => this.#expand(event.currentTarget));
    this.stopButton.addEventListener("click", () => this.#stop(runId, alarm));
    for (const name of ["copy", "expand"]) show(part(root, name), true);
  }

  /** The text of an ended call is on the page already: take it over as it is. */
  adopt(call) {
    this.source = call.text;
    this.finished = true;
    this.follow.held = false;
  }

  /** Returns false when some text is left for a later frame. Call `follow.update()` afterwards. */
  draw(call, model, frameMs) {
    const ended = ENDED_CALL.has(call.state);
    const complete = this.#text(call, ended, frameMs);
    this.root.dataset.s = call.state;
    state(part(this.root, "state"), call.state, callWords(call));
    const note = callNote(call);
    text(part(this.root, "reason"), note);
    show(part(this.root, "reason"), Boolean(note));
    this.body.setAttribute("aria-busy", ended ? "false" : "true");
    show(part(this.root, "empty"), !call.text && !ended);
    show(this.stopButton, this.mayStop && !ended && !ENDED_RUN.has(model.status));
    if (call.stopping || model.stop_requested) this.#stopping();
    this.#numbers(call);
    return complete;
  }

  /** Numbers that move without an event. */
  tick(call) {
    if (!ENDED_CALL.has(call.state)) this.#numbers(call);
  }

  #text(call, ended, frameMs) {
    if (this.finished) return true;
    this.markdown ??= new Incremental(part(this.root, "md"));
    if (this.rev !== call.rev) {
      this.markdown.reset();
      this.rev = call.rev;
    }
    this.source = call.text;
    if (call.text.length > this.markdown.received) {
      this.markdown.push(call.text.slice(this.markdown.received));
    }
    if (ended) {
      this.markdown.finish();
      this.finished = true;
      return true;
    }
    return this.markdown.draw(frameMs);
  }

  #numbers(call) {
    const root = this.root;
    text(part(root, "first-token"), duration(call.first_token_ms));
    text(part(root, "speed"), this.#speed(call));
    text(part(root, "tokens"), !call.input_tokens && !call.output_tokens ? this.#guess(call)
      : `${call.usage_estimated ? "~" : ""}${count(call.input_tokens)} → ${count(call.output_tokens)}`);
    text(part(root, "cost"), ENDED_CALL.has(call.state) ? money(call.cost_micro_usd) : "—");
  }

  /** Output so far, before the provider has counted it. */
  #guess(call) {
    return call.points ? `~${count(Math.ceil(call.points / CHARS_PER_TOKEN))}` : "—";
  }

  #speed(call) {
    if (call.tokens_per_s != null) return speed(call.tokens_per_s);
    if (ENDED_CALL.has(call.state) || call.first_token_ms == null || call.started_ms == null) {
      return "—";
    }
    const elapsed = this.nowMs() - call.started_ms - call.first_token_ms;
    if (elapsed < SPEED_AFTER_MS) return "—";
    return `~${speed((call.points / CHARS_PER_TOKEN / elapsed) * 1000)}`;
  }

  async #copy(button) {
    try {
      await copy(this.source);
      flash(button, this.finished ? "Copied" : "Copied so far");
    } catch {
      flash(button, "Not copied");
    }
  }

  #expand(button) {
    const wide = this.root.toggleAttribute("data-wide");
    button.setAttribute("aria-pressed", String(wide));
    this.follow.update();
  }

  async #stop(runId, alarm) {
    const button = this.stopButton;
    if (button.getAttribute("aria-disabled") === "true") return;
    this.#stopping();
    try {
      await stopCall(runId, this.label);
    } catch (error) {
      button.removeAttribute("aria-disabled");
      text(part(button, "words"), "Stop");
      alarm(`Answer ${this.label} could not be stopped. ${error.message}`);
    }
  }

  #stopping() {
    this.stopButton.setAttribute("aria-disabled", "true");
    text(part(this.stopButton, "words"), "Stopping…");
  }
}
