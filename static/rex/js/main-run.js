// The live page: snapshot from the page, events from the connection, drawing once per frame.

import { Connection } from "./connection.js";
import { part, show } from "./dom.js";
import { ENDED_CALL, ENDED_RUN, apply, cursor, fromSnapshot } from "./model.js";
import { CallCard } from "./render-call.js";
import { drawOverlap } from "./render-overlap.js";
import { Announcer, RunBar, alarm } from "./render-run.js";
import { Strip } from "./render-strip.js";
import { Synthesis } from "./render-synthesis.js";
import { Timeline } from "./render-timeline.js";
import { forgetDraft } from "./start.js";

const TICK_MS = 100;
/** Drawing may take this much of a frame; what is left waits for the next. */
const FRAME_BUDGET_MS = 8;
const MAX_GAPS = 5;

const root = document.getElementById("run");
let model = fromSnapshot(JSON.parse(document.getElementById("run-snapshot").textContent));
forgetDraft(model.prompt);
root.classList.add("js");

let clockOffsetMs = Date.parse(model.now) - Date.now();
/** The run's clock, which starts when the run is accepted. */
const nowMs = () => Math.max(0, Date.now() + clockOffsetMs - Date.parse(model.created_at));

const bar = new RunBar(root, { runId: model.id, nowMs });
const cards = new Map();
for (const node of root.querySelectorAll("[data-call]")) {
  const mayStop = Boolean(part(root, "stop-run"));
  cards.set(node.dataset.call, new CallCard(node, { runId: model.id, nowMs, alarm, mayStop }));
}
const synthesis = new Synthesis(document.getElementById("synthesis"), root.querySelector(".rail"));
const timeline = new Timeline(document.getElementById("timeline"), nowMs);
const strip = new Strip(root);
const overlap = document.getElementById("overlap");
const announcer = new Announcer(document.getElementById("say"));
let frame = 0;
let gaps = 0;

/** Frames in which nothing was drawn yet show the server's own text; take it over unchanged. */
function adopt() {
  for (const call of model.calls) {
    if (ENDED_CALL.has(call.state)) cards.get(call.label)?.adopt(call);
  }
  if (ENDED_RUN.has(model.status)) synthesis.adopt(model);
  announcer.prime(model);
}

function draw(frameMs) {
  frame = 0;
  if (document.hidden) return; // the model goes on; one drawing when the reader comes back
  const started = performance.now();
  const dirty = model.dirty;
  model.dirty = new Set();
  const left = new Set();
  const drawn = [];
  if ((dirty.has("synthesis") || dirty.has("overlap")) && !synthesis.draw(model, frameMs)) left.add("synthesis");
  if (dirty.has("overlap")) drawOverlap(overlap, model);
  for (const call of model.calls) {
    const key = `call:${call.label}`;
    if (!dirty.has(key)) continue;
    if (performance.now() - started > FRAME_BUDGET_MS) {
      left.add(key);
      continue;
    }
    const card = cards.get(call.label);
    if (!card.draw(call, model, frameMs)) left.add(key);
    drawn.push(card);
  }
  // Following measures the panel: after all writing, so that the page is laid out once a frame.
  for (const card of drawn) card.follow.update();
  if (dirty.has("run")) {
    bar.draw(model);
    timeline.draw(model);
    announcer.observe(model);
  }
  strip.draw(model);
  for (const key of left) model.dirty.add(key);
  if (left.size) schedule();
}

function schedule() {
  if (!frame) frame = requestAnimationFrame(draw);
}

function replace(snapshot) {
  const old = model;
  model = fromSnapshot(snapshot);
  model.stop_requested = old.stop_requested;
  schedule();
}

async function resync() {
  const response = await fetch(`/api/runs/${model.id}`, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(String(response.status));
  replace(await response.json());
}

/** A hole in the events: ask from where we are; if that left it open, take a whole snapshot. */
function repair() {
  gaps += 1;
  if (gaps > MAX_GAPS) {
    connection.close();
    bar.connection("offline");
    alarm("This page could not follow the run. Reload it to see where the run is.");
  } else if (gaps === 1) connection.restart();
  else resync().then(() => connection.restart(), () => connection.restart());
}

function onFrame(frameIn) {
  switch (frameIn.k) {
    case "hello":
      clockOffsetMs = Date.parse(frameIn.now) - Date.now();
      break;
    case "snapshot":
      replace(frameIn.run);
      break;
    case "ev":
      for (const event of frameIn.events) {
        const outcome = apply(model, event);
        if (outcome === "applied") gaps = 0;
        if (outcome !== "gap") continue;
        repair();
        break;
      }
      schedule();
      break;
    case "hb":
      if (frameIn.seq > model.seq) repair();
      break;
    case "bye":
      ended(frameIn.code);
      break;
    default:
  }
}

function ended(code) {
  if (code === "run_done") {
    bar.connection("ended");
    // The connection ends with the run; what is still missing, as the reason in words, is on record.
    const open = !ENDED_RUN.has(model.status) || (model.reason && !model.message);
    if (open) resync().catch(() => alarm("Reload to see how it ended."));
  } else if (code === "auth") bar.connection("auth");
  else if (code === "not_found") bar.connection("not_found");
}

function onState(name) {
  bar.connection(name);
  if (name === "auth") alarm("You are signed out. Sign in again to follow this run.");
  if (name === "live") alarm("");
}

const socketUrl = new URL(`/ws/runs/${model.id}/`, location.href);
socketUrl.protocol = socketUrl.protocol === "https:" ? "wss:" : "ws:";
const connection = new Connection({
  socketUrl: socketUrl.href,
  pollUrl: `/api/runs/${model.id}/events`,
  cursor: () => cursor(model),
  onFrame,
  onState,
});

adopt();
show(part(root, "connection"), false);
if (ENDED_RUN.has(model.status)) bar.connection("ended");
else connection.open();
schedule();

setInterval(() => {
  if (document.hidden || ENDED_RUN.has(model.status)) return;
  bar.tick(model);
  timeline.tick(model);
  for (const call of model.calls) cards.get(call.label)?.tick(call);
}, TICK_MS);
addEventListener("online", () => connection.nudge());
addEventListener("pageshow", (event) => { if (event.persisted) connection.nudge(); });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  schedule();
  connection.nudge();
});
