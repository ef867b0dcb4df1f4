// Who worked when, on one time axis: thinking, answering, and every version of the synthesis.
// It shows the one thing the numbers cannot: that the answer began before the answers ended.
// The server draws the same picture with the same geometry (rex_timeline.py).

import { svg } from "./dom.js";
import { duration } from "./format.js";
import { ENDED_CALL, ENDED_RUN } from "./model.js";
import { callWords, versionWords } from "./words.js";

const STEPS_S = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
const MAX_TICKS = 6;

/** Rows of bars in milliseconds of the run's clock. Pure: the picture's only input. */
export function rows(model, nowMs) {
  const end = ENDED_RUN.has(model.status) ? model.totals.duration_ms ?? nowMs : nowMs;
  const lanes = model.calls.map((call) => {
    const start = call.started_ms;
    if (start == null) return { name: call.label, words: callWords(call), bars: [] };
    const stop = ENDED_CALL.has(call.state) ? start + (call.duration_ms ?? 0) : end;
    const first = call.first_token_ms == null ? stop : Math.min(stop, start + call.first_token_ms);
    return {
      name: call.label,
      words: `${callWords(call)}, from ${duration(start)} to ${duration(stop)}`,
      bars: [
        { kind: "wait", from: start, to: first },
        { kind: call.state, from: first, to: stop },
      ],
    };
  });
  const versions = model.synthesis.versions.filter((row) => row.started_ms != null);
  const running = (row) => row.state === "running" && !ENDED_RUN.has(model.status);
  lanes.push({
    name: "Synthesis",
    words: versions.map((row) => versionWords(row)).join("; ") || "not begun",
    bars: versions.map((row) => ({
      kind: row.state === "failed" ? "failed" : row.kind,
      from: row.started_ms,
      to: running(row) ? end : row.started_ms + (row.duration_ms ?? 0),
    })),
  });
  const last = Math.max(end, 1_000, ...lanes.flatMap((lane) => lane.bars.map((bar) => bar.to)));
  return { lanes, endMs: last };
}

/** Round marks of the axis, in milliseconds, at most MAX_TICKS of them after zero. */
export function ticks(endMs) {
  const step = STEPS_S.find((s) => endMs / 1000 / s <= MAX_TICKS) ?? STEPS_S.at(-1);
  const marks = [];
  for (let at = 0; at <= endMs / 1000; at += step) marks.push(at * 1000);
  return marks;
}

export class Timeline {
  constructor(root, nowMs) {
    this.root = root;
    this.nowMs = nowMs;
    this.drawnAt = -Infinity;
  }

  tick(model) {
    if (performance.now() - this.drawnAt >= 500) this.draw(model);
  }

  draw(model) {
    this.drawnAt = performance.now();
    const { lanes, endMs } = rows(model, this.nowMs());
    const scale = (ms) => `${((ms / endMs) * 100).toFixed(3)}%`;
    const wide = (bar) => `${Math.max(0.4, ((bar.to - bar.from) / endMs) * 100).toFixed(3)}%`;
    for (const lane of lanes) {
      const row = this.root.querySelector(`[data-lane="${lane.name}"]`);
      if (!row) continue;
      row.querySelector("svg").replaceChildren(...lane.bars.map((bar) => svg("rect", {
        class: `bar ${bar.kind}`, x: scale(bar.from), y: bar.kind === "wait" ? "40%" : "15%",
        width: wide(bar), height: bar.kind === "wait" ? "20%" : "70%", rx: 3,
      })));
      const words = row.querySelector("[data-part=lane-words]");
      if (words.textContent !== lane.words) words.textContent = lane.words;
    }
    const axis = this.root.querySelector("[data-part=axis]");
    axis.replaceChildren(...ticks(endMs).flatMap((at) => [
      svg("line", { x1: scale(at), x2: scale(at), y1: 0, y2: 5 }),
      svg("text", {
        x: scale(at), y: 17,
        "text-anchor": at === 0 ? "start" : at / endMs > 0.95 ? "end" : "middle",
      }, at === 0 ? "0" : `${at / 1000} s`),
    ]));
  }
}
