// Small helpers to build and change nodes. Text goes in as text; nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** el("p", {class: "note", hidden: true}, "text", node) */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  set(node, attributes);
  node.append(...children.filter((child) => child != null));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  set(node, attributes);
  node.append(...children);
  return node;
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
}

/** A symbol of the page's sprite, hidden from assistive technology: the word is beside it. */
export const icon = (name) =>
  svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));

/** The element of `root` that plays `name` (data-part). */
export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

/** Write only what differs: an equal write would end a selection and wake screen readers. */
export function text(node, value) {
  if (node && node.textContent !== value) node.textContent = value;
}

export function show(node, visible) {
  if (node && node.hidden === visible) node.hidden = !visible;
}

/** A state mark: icon, word and the attribute the colour hangs on. */
export function state(node, name, words) {
  if (!node) return;
  if (node.dataset.s !== name) {
    node.dataset.s = name;
    node.querySelector("use")?.setAttribute("href", `#i-${name}`);
  }
  text(part(node, "words"), words);
}

/** A link to answer `label`, in that answer's colour. */
export function chip(label, index, disputed = false) {
  return el("a", {
    class: disputed ? `chip l${index % 8} disputes` : `chip l${index % 8}`,
    href: `#call-${label}`,
    "aria-label": disputed ? `disputed by answer ${label}` : `from answer ${label}`,
  }, label);
}

export async function copy(value) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(value);
    return;
  }
  // A LAN address without TLS has no clipboard API.
  const area = el("textarea", { class: "vh", "aria-hidden": "true", tabindex: "-1" });
  area.value = value;
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus({ preventScroll: true });
  if (!done) throw new Error("The browser refused to copy.");
}

/** Swap a button's label for a moment, keeping its width and the focus. */
export function flash(button, words, ms = 1600) {
  const label = part(button, "words") ?? button;
  button.dataset.label ??= label.textContent;
  text(label, words);
  clearTimeout(button.flashTimer);
  button.flashTimer = setTimeout(() => text(label, button.dataset.label), ms);
}
