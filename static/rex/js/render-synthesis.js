// The synthesis: its sentence of state, its text in blocks with their sources, its versions.
// Double-buffered: the version on screen stays whole until the next one is whole, so that no
// sentence a reader is in the middle of disappears. Only a first draft, which replaces nothing,
// is shown as it is written.

import { chip, copy, el, flash, part, show, state, text } from "./dom.js";
import { count } from "./format.js";
import { Incremental, render } from "./markdown.js";
import { answerText, ENDED_RUN } from "./model.js";
import { paceSentence, synthesisSentence, versionWords } from "./words.js";

const HIGHLIGHT_MS = 2_000;
const MARK = { agreed: "agreed", disputed: "disputed", unsupported: "no source" };

export class Synthesis {
  constructor(root, rail) {
    this.root = root;
    this.rail = rail;
    this.doc = part(root, "doc");
    this.liveBox = part(root, "live");
    this.markdown = null;
    this.liveVersion = null;
    this.shownBlocks = null;
    this.versions = new Map();
    this.copyButton = part(root, "copy");
    this.copyButton.addEventListener("click", () => this.#copy());
    part(root, "switch").addEventListener("click", () => {
      document.getSelection()?.removeAllRanges();
      this.#swap(true);
      this.doc.focus({ preventScroll: true });
    });
  }

  /** The blocks are on the page already: take them over as they are. */
  adopt(model) {
    this.shownBlocks = model.synthesis.single ? model.answer : model.synthesis.blocks;
    this.model = model;
  }

  draw(model, frameMs) {
    this.model = model;
    this.index = new Map(model.calls.map((call, i) => [call.label, i]));
    const synthesis = model.synthesis;
    const complete = this.#live(synthesis, frameMs);
    this.#document(model);
    state(part(this.root, "state"), MARKS[synthesis.state] ?? "queued", STATE[synthesis.state] ?? "");
    text(part(this.root, "sentence"), synthesisSentence(model));
    this.#progress(synthesis);
    this.#versions(synthesis);
    show(this.copyButton, answerText(model) !== null);
    this.doc.setAttribute("aria-busy", ENDED_RUN.has(model.status) ? "false" : "true");
    return complete;
  }

  #live(synthesis, frameMs) {
    const live = synthesis.live;
    const visible = Boolean(live && live.kind !== "patch" && !synthesis.blocks.length);
    if (!visible) {
      if (!live) this.#endLive();
      return true;
    }
    if (this.liveVersion !== live.version || this.liveRev !== live.rev) {
      this.markdown = new Incremental(this.liveBox);
      this.liveVersion = live.version;
      this.liveRev = live.rev;
    }
    if (live.text.length > this.markdown.received) {
      this.markdown.push(live.text.slice(this.markdown.received));
    }
    show(this.liveBox, Boolean(live.text));
    return this.markdown.draw(frameMs);
  }

  #endLive() {
    // A failed first draft leaves its words on screen until there is something to put there.
    if (this.model.synthesis.blocks.length === 0) return;
    this.liveBox.replaceChildren();
    show(this.liveBox, false);
    this.liveVersion = null;
  }

  #document(model) {
    const blocks = model.synthesis.blocks;
    const verbatim = model.synthesis.single && model.answer;
    const wanted = verbatim ? model.answer : blocks;
    const pending = wanted !== this.shownBlocks && wanted.length > 0;
    if (pending) this.#swap(false);
    const nothing = !blocks.length && !verbatim && this.liveBox.hidden;
    const alike = model.overlap?.agreed?.length || model.overlap?.disputed?.length;
    show(part(this.root, "empty"), nothing && !alike && !ENDED_RUN.has(model.status));
  }

  /** Put the newest version on screen, unless a selection in the old one would be lost. */
  #swap(force) {
    const selection = document.getSelection();
    const reading = selection && !selection.isCollapsed && this.doc.contains(selection.anchorNode);
    show(part(this.root, "switch"), Boolean(reading) && !force);
    if (reading && !force) return;
    const { synthesis, answer } = this.model;
    const old = new Map([...this.doc.children].map((node) => [node.dataset.block, node]));
    const first = this.shownBlocks === null || !this.shownBlocks.length;
    if (synthesis.single) {
      const box = el("div", { class: "block", "data-block": "answer" }, el("div", { class: "md" }));
      box.firstChild.append(render(answer));
      this.doc.replaceChildren(box);
      this.shownBlocks = answer;
      this.#endLive();
      show(this.liveBox, false);
      return;
    }
    const changed = new Set(synthesis.changed ?? []);
    this.doc.replaceChildren(...synthesis.blocks.map((block) => {
      const kept = old.get(block.id);
      if (kept && kept.md === block.md) {
        this.#provenance(kept, block);
        return kept;
      }
      const node = this.#block(block);
      // Blocks that came with the page carry no source text: nobody saw them change.
      if (!first && (changed.has(block.id) || kept?.md !== undefined)) this.#highlight(node);
      return node;
    }));
    this.shownBlocks = synthesis.blocks;
    this.liveBox.replaceChildren();
    show(this.liveBox, false);
  }

  #block(block) {
    const body = el("div", { class: "md" });
    body.append(render(block.md));
    const node = el("div", { class: "block", "data-block": block.id }, body,
      el("p", { class: "provenance" }));
    node.md = block.md;
    this.#provenance(node, block);
    return node;
  }

  #provenance(node, block) {
    node.dataset.status = block.status ?? "";
    const position = (label) => this.index?.get(label) ?? 0;
    const marks = [
      ...block.sources.map((label) => chip(label, position(label))),
      ...(block.disputes ?? []).map((label) => chip(label, position(label), true)),
    ];
    if (MARK[block.status]) marks.push(el("span", { class: "mark" }, MARK[block.status]));
    node.querySelector(".provenance")?.replaceChildren(...marks);
  }

  #highlight(node) {
    node.toggleAttribute("data-new", true);
    setTimeout(() => node.toggleAttribute("data-new", false), HIGHLIGHT_MS);
  }

  #progress(synthesis) {
    const writing = synthesis.versions.find((row) => row.state === "running");
    const visible = Boolean(writing) && synthesis.blocks.length > 0;
    show(part(this.root, "progress"), visible);
    if (!visible) return;
    const what = writing.kind === "patch" ? "Changing what is new."
      : `Writing a new version, ${count(synthesis.live?.points ?? 0)} characters so far.`;
    text(part(this.root, "progress-words"), `${what} What you read stays until it is ready.`);
  }

  #versions(synthesis) {
    const box = part(this.rail, "versions");
    show(part(this.rail, "versions-box"), synthesis.versions.length > 0);
    text(part(this.rail, "pace"), paceSentence(this.model));
    text(part(this.rail, "versions-count"), String(synthesis.versions.length));
    for (const version of synthesis.versions) {
      let row = this.versions.get(version.version)
        ?? box.querySelector(`[data-version="${version.version}"]`);
      if (!row) {
        row = el("li", { "data-version": version.version }, el("details", {},
          el("summary", {}, el("span", { class: "num" }, `v${version.version}`), " ",
            el("span", { "data-part": "version-words" })),
          el("div", { class: "md small", "data-part": "version-body" })));
        box.append(row);
      }
      this.versions.set(version.version, row);
      row.dataset.s = version.state;
      row.toggleAttribute("data-current", version.version === synthesis.version);
      text(part(row, "version-words"), versionWords(version));
      const body = part(row, "version-body");
      if (version.blocks?.length && !body.childNodes.length) {
        body.append(render(version.blocks.map((block) => block.md).join("\n\n")));
      } else if (!version.blocks?.length && !body.childNodes.length && version.state === "failed") {
        body.append(el("p", {}, "What was written could not be used; the version before it stays."));
      }
    }
  }

  async #copy() {
    try {
      await copy(answerText(this.model) ?? "");
      flash(this.copyButton, ENDED_RUN.has(this.model.status) ? "Copied" : "Copied so far");
    } catch {
      flash(this.copyButton, "Not copied");
    }
  }
}

const STATE = {
  waiting: "waiting", drafting: "drafting", draft: "provisional", revising: "revising",
  final: "final", amended: "amended", single: "one answer", failed: "failed", none: "none",
};
const MARKS = {
  waiting: "waiting", drafting: "streaming", draft: "streaming", revising: "retrying",
  final: "done", amended: "done", single: "done", failed: "failed", none: "skipped",
};
