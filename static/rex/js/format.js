// Numbers as readers see them. The server renders the same in rex_format.py; both read
// tests/frontend/words.json, so they cannot drift apart.

const grouped = new Intl.NumberFormat("en-US");

/** Micro-dollars. Unknown is a dash, never a guess; below a cent nothing is rounded away. */
export function money(microUsd) {
  if (microUsd == null) return "—";
  if (microUsd === 0) return "$0";
  if (microUsd >= 1_000_000) return `$${(Math.floor((microUsd + 5_000) / 10_000) / 100).toFixed(2)}`;
  if (microUsd >= 10_000) return `$${(Math.floor((microUsd + 50) / 100) / 10_000).toFixed(4)}`;
  const digits = String(microUsd).padStart(6, "0").replace(/0+$/, "").padEnd(4, "0");
  return `$0.${digits}`;
}

/** Milliseconds: "0.61 s", "6.1 s", "14.2 s", "2 min 05 s", "1 h 02 min". */
export function duration(ms) {
  if (ms == null) return "—";
  if (ms < 1_000) return `${(Math.floor(ms / 10) / 100).toFixed(2)} s`;
  if (ms < 100_000) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  const seconds = Math.floor(ms / 1_000);
  const pad = (value) => String(value).padStart(2, "0");
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${pad(seconds % 60)} s`;
  return `${Math.floor(seconds / 3_600)} h ${pad(Math.floor((seconds % 3_600) / 60))} min`;
}

/** Seconds, in the largest unit: "12 s old", "3 h old", "2 days old". */
export function age(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 60) return `${seconds} s old`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min old`;
  if (seconds < 48 * 3_600) return `${Math.floor(seconds / 3_600)} h old`;
  return `${Math.floor(seconds / 86_400)} days old`;
}

export const count = (value) => (value == null ? "—" : grouped.format(value));

/** Tokens per second: one decimal below ten. */
export function speed(tokensPerS) {
  if (tokensPerS == null) return "—";
  const text = tokensPerS < 10 ? (Math.floor(tokensPerS * 10) / 10).toFixed(1)
    : String(Math.floor(tokensPerS));
  return `${text} tok/s`;
}

/** ["A","B","C"] → "A, B and C". */
export function list(labels) {
  if (labels.length < 2) return labels.join("");
  return `${labels.slice(0, -1).join(", ")} and ${labels.at(-1)}`;
}
