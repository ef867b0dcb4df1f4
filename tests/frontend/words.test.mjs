// The page's words and numbers, from the same table the server's are tested with.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as format from "../../static/rex/js/format.js";
import * as words from "../../static/rex/js/words.js";

const table = JSON.parse(readFileSync(new URL("./words.json", import.meta.url)));

const STATES = { q: "queued", s: "streaming", d: "done", f: "failed", c: "cancelled" };

/** The part of a run that a sentence about its synthesis depends on. */
function run({ status, calls, state, shown, writing, degraded = false }) {
  const versions = [];
  if (shown) versions.push({ version: 1, state: "applied", sources: shown });
  if (writing) versions.push({ version: 2, state: "running", sources: writing });
  return {
    status, degraded,
    calls: [...calls].map((letter) => ({ state: STATES[letter] })),
    synthesis: { state, version: shown ? 1 : 0, versions, blocks: [] },
  };
}

const functions = {
  money: format.money, duration: format.duration, age: format.age, speed: format.speed, count: format.count,
  labels: format.list, run_word: words.runWord, call_words: words.callWords,
  call_note: words.callNote,
  pace_sentence: words.paceSentence, version_words: words.versionWords,
  synthesis_sentence: (given) => words.synthesisSentence(run(given)),
};

for (const [name, cases] of Object.entries(table)) {
  for (const [given, expected] of cases) {
    test(`${name} of ${JSON.stringify(given)} is ${JSON.stringify(expected)}`, () => {
      assert.equal(functions[name](given), expected);
    });
  }
}
