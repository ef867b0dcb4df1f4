// On a narrow screen one panel is read at a time; the strip chooses it and shows every state.
// Without JavaScript, and on wide screens, the same links simply jump.

import { part, state } from "./dom.js";
import { callWords } from "./words.js";

export class Strip {
  constructor(root) {
    this.links = [...root.querySelectorAll("[data-goto]")];
    this.panels = new Map([...root.querySelectorAll("[data-panel]")]
      .map((node) => [node.dataset.panel, node]));
    for (const link of this.links) {
      link.addEventListener("click", () => this.choose(link.dataset.goto));
    }
    root.addEventListener("click", (event) => {
      const chip = event.target.closest("a.chip");
      if (chip) this.choose(chip.hash.replace("#call-", ""));
    });
    const wanted = location.hash.replace("#call-", "");
    this.choose(this.panels.has(wanted) ? wanted : "synthesis");
  }

  choose(name) {
    if (!this.panels.has(name)) return;
    for (const [key, panel] of this.panels) panel.toggleAttribute("data-off", key !== name);
    for (const link of this.links) {
      if (link.dataset.goto === name) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  draw(model) {
    for (const call of model.calls) {
      const link = this.links.find((node) => node.dataset.goto === call.label);
      if (link) state(part(link, "state"), call.state, callWords(call));
    }
  }
}
