// Commands are POSTs, never socket frames: they work while the socket is down. Pressing twice is
// harmless: a stop is asked for once, however often.

function csrfToken() {
  return document.querySelector('meta[name="csrf-token"]')?.content ?? "";
}

/** 128 random bits; crypto.randomUUID exists only on secure origins, and a LAN address is none. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function post(path) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "X-CSRFToken": csrfToken(), Accept: "application/json" },
  });
  if (response.ok) return;
  const problem = await response.json().catch(() => null);
  throw new Error(problem?.detail ?? `The server answered ${response.status}.`);
}

export const stopRun = (runId) => post(`/api/runs/${runId}/stop`);
export const stopCall = (runId, label) =>
  post(`/api/runs/${runId}/calls/${encodeURIComponent(label)}/stop`);
