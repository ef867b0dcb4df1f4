// What several answers already say alike, and where they differ: shown before any model has
// synthesized anything. It is agreement, not truth, and is labelled so.

import { chip, el, show, text, part } from "./dom.js";

const SHOWN = 6;

export function drawOverlap(root, model) {
  const overlap = model.overlap;
  const agreed = overlap?.agreed ?? [];
  const disputed = overlap?.disputed ?? [];
  const index = new Map(model.calls.map((call, i) => [call.label, i]));
  const totals = overlap?.totals ?? { agreed: agreed.length, disputed: disputed.length };
  const some = agreed.length + disputed.length > 0;
  show(root, some);
  if (!some) return;
  text(part(root, "overlap-count"), counts(totals.agreed, totals.disputed));
  part(root, "overlap-body").replaceChildren(
    ...section("Said alike", agreed.slice(0, SHOWN).map((row) => el("li", {},
      el("p", {}, row.text), chips(row.labels, index))), totals.agreed),
    ...section("Said differently", disputed.slice(0, SHOWN).map((row) => el("li", {},
      el("ul", { class: "variants" }, ...row.variants.map((variant) => el("li", {},
        chip(variant.label, index.get(variant.label) ?? 0), el("p", {}, variant.text)))))),
    totals.disputed),
  );
}

function counts(agreed, disputed) {
  const parts = [];
  if (agreed) parts.push(`${agreed} alike`);
  if (disputed) parts.push(`${disputed} different`);
  return parts.join(", ");
}

function section(title, items, total) {
  if (!items.length) return [];
  const more = total > SHOWN ? [el("p", { class: "muted" }, `and ${total - SHOWN} more`)] : [];
  return [el("div", {}, el("h3", {}, title), el("ul", { class: "overlap" }, ...items), ...more)];
}

const chips = (labels, index) => el("span", { class: "chips" },
  ...labels.map((label) => chip(label, index.get(label) ?? 0)));
