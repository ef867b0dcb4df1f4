// One live connection to a run: a socket, reconnected for ever, with a long poll behind it.
// It carries frames and its own health; what they mean is the model's affair.
// Everything it touches of the outside is in `world`, so that tests drive it without a network.

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;
const SILENCE_MS = 45_000; // the server's heartbeat comes every 20 s: after two missed, it is dead
const FAILURES_BEFORE_POLL = 3;
const SOCKET_AGAIN_MS = 60_000;
const SHOW_TROUBLE_MS = 1_000;
const POLL_WAIT_S = 20;

/** Statuses and close codes that are for good: signed out, not allowed, not there. */
const REFUSED = {
  401: "auth", 403: "auth", 404: "not_found",
  4401: "auth", 4403: "auth", 4404: "not_found",
};

const browser = {
  now: () => performance.now(),
  random: () => Math.random(),
  setTimeout: (...rest) => setTimeout(...rest),
  clearTimeout: (timer) => clearTimeout(timer),
  socket: (url) => new WebSocket(url),
  fetch: (...rest) => fetch(...rest),
};

export class Connection {
  #timers = {};
  #socket = null;
  #failures = 0;
  #closed = false;
  #polling = null;
  #shown = null;

  /**
   * cursor() → {since, have}; onFrame(frame); onState("live" | "reconnecting" | "offline" |
   * "auth" | "not_found"). `offline` is said once the long poll fails as well.
   */
  constructor({ socketUrl, pollUrl, cursor, onFrame, onState, world = browser }) {
    Object.assign(this, { socketUrl, pollUrl, cursor, onFrame, onState, world });
  }

  open() {
    if (this.#closed || this.#socket) return;
    this.#stop("retry");
    this.#later("trouble", SHOW_TROUBLE_MS, () => this.#show("reconnecting"));
    let socket;
    try {
      socket = this.world.socket(this.socketUrl);
    } catch {
      this.#lost();
      return;
    }
    this.#socket = socket;
    const mine = (handle) => (event) => { if (this.#socket === socket) handle(event); };
    socket.onopen = mine(() => socket.send(JSON.stringify({ k: "sub", ...this.cursor() })));
    socket.onmessage = mine((event) => this.#received(JSON.parse(event.data)));
    socket.onclose = mine((event) => this.#gone(event.code));
    socket.onerror = () => {};
    this.#watch();
  }

  /** Ask again from where the reader is: a subscription is made once per socket. */
  restart() {
    if (this.#closed) return;
    this.#drop();
    this.#lost();
  }

  /** The network came back, or the tab did: do not sit out the back-off. */
  nudge() {
    if (this.#closed || this.#socket) return;
    this.#failures = Math.min(this.#failures, 1);
    this.open();
  }

  close() {
    this.#closed = true;
    for (const name of Object.keys(this.#timers)) this.#stop(name);
    this.#polling?.abort();
    this.#drop();
  }

  #received(frame) {
    this.#failures = 0;
    this.#polling?.abort();
    this.#polling = null;
    this.#stop("trouble");
    this.#watch();
    this.#show("live");
    if (frame.k === "bye" && !frame.retry) {
      this.onFrame(frame);
      this.close();
      return;
    }
    this.onFrame(frame);
  }

  #gone(code) {
    this.#socket = null;
    if (!this.#refused(code)) this.#lost();
  }

  /** Whether `code` ends it; trying again would not help, so the reader is told why. */
  #refused(code) {
    if (!REFUSED[code]) return false;
    this.#show(REFUSED[code]);
    this.close();
    return true;
  }

  #lost() {
    this.#stop("silence");
    this.#failures += 1;
    if (!this.#timers.trouble && this.#shown === "live") {
      this.#later("trouble", SHOW_TROUBLE_MS, () => this.#show("reconnecting"));
    }
    const polling = this.#failures >= FAILURES_BEFORE_POLL;
    if (polling && !this.#polling) this.#poll();
    const ceiling = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (this.#failures - 1));
    // Full jitter: after a restart, readers do not come back all in the same instant.
    const wait = polling ? SOCKET_AGAIN_MS : this.world.random() * ceiling;
    this.#later("retry", wait, () => this.open());
  }

  async #poll() {
    const polling = new AbortController();
    this.#polling = polling;
    let failures = 0;
    while (!polling.signal.aborted) {
      const { since, have } = this.cursor();
      const query = new URLSearchParams({ since, have: JSON.stringify(have), wait: POLL_WAIT_S });
      try {
        const response = await this.world.fetch(`${this.pollUrl}?${query}`, {
          headers: { Accept: "application/json" }, signal: polling.signal,
        });
        if (polling.signal.aborted || this.#refused(response.status)) return;
        if (!response.ok) throw new Error(String(response.status));
        const { events, done } = await response.json();
        if (polling.signal.aborted) return;
        failures = 0;
        this.#stop("trouble");
        this.#show("live");
        this.onFrame({ k: "ev", events });
        if (done) {
          this.onFrame({ k: "bye", code: "run_done", retry: false });
          this.close();
        }
      } catch {
        if (polling.signal.aborted) return;
        failures += 1;
        this.#stop("trouble");
        this.#show("offline");
        const ceiling = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures);
        await new Promise((resolve) => this.#later("poll", ceiling, resolve));
      }
    }
  }

  #watch() {
    this.#later("silence", SILENCE_MS, () => {
      this.#drop();
      this.#lost();
    });
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #show(state) {
    if (this.#shown === state) return;
    this.#shown = state;
    this.onState(state);
  }

  #later(name, ms, run) {
    this.#stop(name);
    this.#timers[name] = this.world.setTimeout(() => {
      delete this.#timers[name];
      run();
    }, ms);
  }

  #stop(name) {
    this.world.clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }
}
