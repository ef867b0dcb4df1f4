// Commands are POSTs, never socket frames: they work while the socket is down, and a second press
// carries its own key, so the server does the thing once.

function csrfToken() {
  return document.querySelector('meta[name="csrf-token"]')?.content ?? "";
}

/** 128 random bits; crypto.randomUUID exists only on secure origins, and a LAN address is none. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function post(path, key) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "X-CSRFToken": csrfToken(), "Idempotency-Key": key, Accept: "application/json" },
  });
  if (response.ok) return;
  const problem = await response.json().catch(() => null);
  throw new Error(problem?.detail ?? `The server answered ${response.status}.`);
}

export const stopRun = (runId, key) => post(`/api/runs/${runId}/stop`, key);
export const stopCall = (runId, label, key) =>
  post(`/api/runs/${runId}/calls/${encodeURIComponent(label)}/stop`, key);
