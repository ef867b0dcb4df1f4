// The connection against a played network: sockets, clock and chance are the test's.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Connection } from "../../static/rex/js/connection.js";

/** A clock that moves when told, sockets that do what they are told, and a fetch to answer. */
class World {
  constructor() {
    this.ms = 0;
    this.timers = new Map();
    this.sockets = [];
    this.fetches = [];
    this.ids = 0;
  }
  setTimeout(run, ms) {
    this.ids += 1;
    this.timers.set(this.ids, { at: this.ms + ms, run });
    return this.ids;
  }
  clearTimeout(id) { this.timers.delete(id); }
  random() { return 1; }
  socket(url) {
    const socket = {
      url, readyState: 0, sent: [],
      send: (data) => socket.sent.push(JSON.parse(data)),
      close: () => { socket.readyState = 3; socket.onclose?.({ code: 1000 }); },
    };
    this.sockets.push(socket);
    return socket;
  }
  fetch(url, options) {
    return new Promise((resolve, reject) => {
      this.fetches.push({ url, resolve, reject });
      options.signal.addEventListener("abort", () => reject(new Error("aborted")));
    });
  }
  async pass(ms) {
    const until = this.ms + ms;
    for (;;) {
      const due = [...this.timers].filter(([, timer]) => timer.at <= until)
        .sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.timers.delete(due[0]);
      this.ms = due[1].at;
      due[1].run();
      await new Promise(setImmediate);
    }
    this.ms = until;
    await new Promise(setImmediate);
  }
}

function connected() {
  const world = new World();
  const seen = { frames: [], states: [] };
  let seq = 3;
  const connection = new Connection({
    socketUrl: "ws://rex/ws/runs/1/", pollUrl: "/api/runs/1/events",
    cursor: () => ({ since: seq, have: { A: [0, seq] } }),
    onFrame: (frame) => { seen.frames.push(frame); seq += 1; },
    onState: (state) => seen.states.push(state),
    world,
  });
  connection.open();
  const open = (socket = world.sockets.at(-1)) => { socket.readyState = 1; socket.onopen({}); };
  const say = (frame) => world.sockets.at(-1).onmessage({ data: JSON.stringify(frame) });
  const lose = (code = 1006) => {
    const socket = world.sockets.at(-1);
    socket.readyState = 3;
    socket.onclose({ code });
  };
  return { world, seen, connection, open, say, lose };
}

const hello = { k: "hello", v: 1, run: "1", head: 3, now: "2026-11-23T12:00:00Z", hb: 20 };

test("it says what the page holds when the socket opens, and again after a drop", async () => {
  const { world, open, say, lose } = connected();
  open();
  assert.deepEqual(world.sockets[0].sent, [{ k: "sub", since: 3, have: { A: [0, 3] } }]);
  say(hello);
  lose();
  await world.pass(500);
  open();
  assert.deepEqual(world.sockets[1].sent, [{ k: "sub", since: 4, have: { A: [0, 4] } }]);
});

test("trouble is shown only after a second, and a socket back by then is never in trouble", async () => {
  const { world, seen, open, say, lose } = connected();
  open();
  say(hello);
  lose();
  await world.pass(500);
  open();
  say(hello);
  await world.pass(5_000);
  assert.deepEqual(seen.states, ["live"]);
  lose();
  await world.pass(999 + 501);
  assert.deepEqual(seen.states, ["live", "reconnecting"]);
});

test("a refusal is final: signed out, and not found", async () => {
  for (const [code, state] of [[4401, "auth"], [4403, "auth"], [4404, "not_found"]]) {
    const { world, seen, open, lose } = connected();
    open();
    lose(code);
    await world.pass(120_000);
    assert.deepEqual([seen.states, world.sockets.length], [[state], 1]);
  }
});

test("a farewell without a retry closes for good", async () => {
  const { world, seen, open, say } = connected();
  open();
  say({ k: "bye", code: "run_done", retry: false });
  await world.pass(120_000);
  assert.equal(world.sockets.length, 1);
  assert.equal(seen.frames.at(-1).code, "run_done");
});

test("a reader that is too slow comes back by itself", async () => {
  const { world, open, say, lose } = connected();
  open();
  say(hello);
  lose(4408);
  await world.pass(15_000);
  assert.equal(world.sockets.length, 2);
});

test("silence of two heartbeats is a dead socket", async () => {
  const { world, open, say } = connected();
  open();
  say(hello);
  await world.pass(44_000);
  say({ k: "hb", seq: 3 });
  await world.pass(44_000);
  assert.equal(world.sockets.length, 1);
  await world.pass(2_000);
  assert.equal(world.sockets.length, 2);
});

test("after three failed sockets it polls, brings the events, and tries a socket again", async () => {
  const { world, seen, open, say, lose } = connected();
  for (let n = 0; n < 3; n += 1) {
    lose();
    if (n < 2) await world.pass(15_000);
  }
  await world.pass(0);
  assert.equal(world.fetches.length, 1);
  const query = new URL(world.fetches[0].url, "http://rex").searchParams;
  assert.deepEqual([query.get("since"), query.get("have")], ["3", '{"A":[0,3]}']);
  const events = [{ seq: 4, type: "run.stop_requested" }];
  world.fetches[0].resolve({ ok: true, json: async () => ({ head: 4, events, done: false }) });
  await world.pass(0);
  assert.deepEqual(seen.frames, [{ k: "ev", events }]);
  assert.equal(seen.states.at(-1), "live");
  assert.equal(world.fetches.length, 2); // waits for more

  const before = world.sockets.length;
  await world.pass(60_000);
  assert.equal(world.sockets.length, before + 1);
  open();
  say(hello);
  await world.pass(30_000);
  assert.equal(world.fetches.length, 2); // the socket is back, so nobody polls
});

test("with neither socket nor poll it says offline, and goes on trying", async () => {
  const { world, seen, lose } = connected();
  for (let n = 0; n < 3; n += 1) {
    lose();
    await world.pass(n < 2 ? 15_000 : 0);
  }
  world.fetches.at(-1).reject(new Error("no network"));
  await world.pass(0);
  assert.equal(seen.states.at(-1), "offline");
  await world.pass(15_000);
  assert.equal(world.fetches.length, 2);
});

test("a poll that is refused is final too: signed out, and not found", async () => {
  for (const [status, state] of [[401, "auth"], [403, "auth"], [404, "not_found"]]) {
    const { world, seen, lose } = connected();
    for (let n = 0; n < 3; n += 1) {
      lose();
      await world.pass(n < 2 ? 15_000 : 0);
    }
    const sockets = world.sockets.length;
    world.fetches[0].resolve({ ok: false, status });
    await world.pass(0);
    await world.pass(120_000);
    assert.equal(seen.states.at(-1), state);
    assert.deepEqual([world.fetches.length, world.sockets.length], [1, sockets]);
  }
});

test("a poll the server fails is tried again, and said to be offline", async () => {
  const { world, seen, lose } = connected();
  for (let n = 0; n < 3; n += 1) {
    lose();
    await world.pass(n < 2 ? 15_000 : 0);
  }
  world.fetches[0].resolve({ ok: false, status: 503 });
  await world.pass(0);
  assert.equal(seen.states.at(-1), "offline");
  await world.pass(15_000);
  assert.equal(world.fetches.length, 2);
});

test("the last poll of a run ends the connection", async () => {
  const { world, seen, lose } = connected();
  for (let n = 0; n < 3; n += 1) {
    lose();
    await world.pass(n < 2 ? 15_000 : 0);
  }
  world.fetches[0].resolve({ ok: true, json: async () => ({ head: 9, events: [], done: true }) });
  await world.pass(120_000);
  assert.deepEqual(seen.frames.at(-1), { k: "bye", code: "run_done", retry: false });
  assert.equal(world.fetches.length, 1);
});

test("the network's return cuts the waiting short", async () => {
  const { world, connection, lose } = connected();
  lose();
  connection.nudge();
  assert.equal(world.sockets.length, 2);
  connection.nudge(); // one is opening already
  assert.equal(world.sockets.length, 2);
});

test("a late word of an abandoned socket is not heard", async () => {
  const { world, seen, connection, open, say } = connected();
  open();
  say(hello);
  const old = world.sockets[0];
  connection.restart();
  await world.pass(500);
  open();
  old.onmessage({ data: JSON.stringify({ k: "hb", seq: 99 }) });
  assert.equal(seen.frames.length, 1);
});
