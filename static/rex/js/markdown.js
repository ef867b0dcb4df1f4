// Model text → DOM, never through an HTML string: marked only tokenises, nodes are made here, and
// nothing a model writes can become an image, a script, a style or a form.
// Incremental keeps finished blocks untouched (a selection in them survives) and redraws the tail.

import { Lexer } from "marked";

const SAFE_LINK = /^(https?:\/\/|mailto:)/i;
const LANGUAGE = /^[\w+#-]{1,20}$/;
const HEADING_SHIFT = 2;
/** A tail this long (one giant list or table) is redrawn at most every TAIL_MS. */
const LONG_TAIL_CHARS = 8192;
const TAIL_MS = 200;
const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—",
  ndash: "–", copy: "©", rarr: "→", larr: "←", times: "×", deg: "°", euro: "€",
};

function decode(text) {
  return text.replace(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w{2,8}));/g, (whole, dec, hex, name) => {
    if (name) return ENTITIES[name] ?? whole;
    const point = dec ? Number.parseInt(dec, 10) : Number.parseInt(hex, 16);
    return point > 0 && point <= 0x10ffff && !(point >= 0xd800 && point <= 0xdfff)
      ? String.fromCodePoint(point) : "\ufffd";
  });
}

function make(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

function scrollable(element, name) {
  element.tabIndex = 0;
  element.setAttribute("role", "group"); // a region would be one more landmark per code block
  element.setAttribute("aria-label", name);
  return element;
}

function link(token) {
  const href = decode(token.href);
  if (!SAFE_LINK.test(href)) return inline(token.tokens, make("span"));
  const anchor = make("a");
  anchor.href = href;
  anchor.rel = "noopener noreferrer nofollow";
  anchor.target = "_blank";
  return inline(token.tokens, anchor);
}

function inline(tokens, into) {
  for (const token of tokens ?? []) {
    switch (token.type) {
      case "strong": case "em": case "del":
        into.append(inline(token.tokens, make(token.type)));
        break;
      case "codespan": into.append(make("code", token.text)); break;
      case "br": into.append(make("br")); break;
      case "link": into.append(link(token)); break;
      case "image": into.append(`[image: ${decode(token.text || "")}]`); break;
      case "checkbox": into.append(token.checked ? "☑ " : "☐ "); break;
      case "text":
        if (token.tokens) inline(token.tokens, into);
        else into.append(decode(token.text));
        break;
      case "escape": into.append(token.text); break;
      default: into.append(token.raw); // raw HTML and anything new: shown as the text it is
    }
  }
  return into;
}

function blocks(tokens, into) {
  for (const token of tokens) {
    const node = block(token);
    if (node) into.append(node);
  }
  return into;
}

function listOf(token) {
  const list = make(token.ordered ? "ol" : "ul");
  if (token.ordered && token.start !== 1 && token.start !== "") list.start = token.start;
  for (const item of token.items) list.append(blocks(item.tokens, make("li")));
  return list;
}

function tableOf(token) {
  const row = (cells, tag) => {
    const line = make("tr");
    for (const cell of cells) line.append(inline(cell.tokens, make(tag)));
    return line;
  };
  const body = make("tbody");
  for (const cells of token.rows) body.append(row(cells, "td"));
  const table = make("table", make("thead", row(token.header, "th")), body);
  const box = make("div", table);
  box.className = "scroll-x";
  return scrollable(box, "Table");
}

function codeOf(token) {
  const code = make("code", token.text);
  if (LANGUAGE.test(token.lang ?? "")) code.className = `language-${token.lang}`;
  return scrollable(make("pre", code), "Code");
}

function block(token) {
  switch (token.type) {
    case "space": case "def": return null;
    case "heading":
      return inline(token.tokens, make(`h${Math.min(6, token.depth + HEADING_SHIFT)}`));
    case "paragraph": return inline(token.tokens, make("p"));
    case "text": return token.tokens ? inline(token.tokens, make("span"))
      : make("span", decode(token.text));
    case "checkbox": return make("span", token.checked ? "☑ " : "☐ ");
    case "code": return codeOf(token);
    case "blockquote": return blocks(token.tokens, make("blockquote"));
    case "list": return listOf(token);
    case "table": return tableOf(token);
    case "hr": return make("hr");
    default: return make("p", token.raw);
  }
}

const lex = (text) => new Lexer({ gfm: true }).lex(text);

/** The whole of `text` as a fragment. */
export function render(text) {
  return blocks(lex(text.replace(/\r\n?/g, "\n")), document.createDocumentFragment());
}

/** Text that grows, drawn into `element`: push(text) any time, draw() once per frame. */
export class Incremental {
  constructor(element) {
    this.element = element;
    this.reset();
  }

  reset() {
    this.received = 0; // UTF-16 units pushed, so that callers know what to push next
    this.text = ""; // with line ends normalised
    this.heldReturn = false; // a chunk ended in CR; an LF may follow
    this.frozen = 0; // text before this index is drawn for good
    this.frozenNodes = 0;
    this.fence = null;
    this.drawnAt = -Infinity;
    this.element.replaceChildren();
  }

  push(text) {
    this.received += text.length;
    if (this.heldReturn) text = `\r${text}`;
    this.heldReturn = text.endsWith("\r");
    if (this.heldReturn) text = text.slice(0, -1);
    this.text += text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
  }

  /** Draw what is new. Returns false if the tail was left for later (a long one, too soon). */
  draw(nowMs = Infinity) {
    if (this.fence && this.#growFence()) return true;
    const tail = this.text.slice(this.frozen);
    if (tail.length > LONG_TAIL_CHARS && nowMs - this.drawnAt < TAIL_MS) return false;
    this.drawnAt = nowMs;
    const tokens = lex(tail);
    const stable = this.#stableCount(tokens, tail);
    this.#clearTail();
    for (const token of tokens.slice(0, stable)) {
      const node = block(token);
      if (node) {
        this.element.append(node);
        this.frozenNodes += 1;
      }
      this.frozen += token.raw.length;
    }
    for (const token of tokens.slice(stable)) {
      const node = block(token);
      if (node) this.element.append(node);
    }
    this.#enterFence(tokens.at(-1));
    return true;
  }

  /** No more text: draw it as one whole, because a link may be defined after its use. */
  finish() {
    if (this.heldReturn) this.text += "\n";
    this.heldReturn = false;
    this.fence = null;
    const whole = make("div", render(this.text));
    const same = whole.childNodes.length === this.element.childNodes.length
      && [...whole.childNodes].every((node, i) => node.isEqualNode(this.element.childNodes[i]));
    if (!same) this.element.replaceChildren(...whole.childNodes);
    this.frozen = this.text.length;
    this.frozenNodes = this.element.childNodes.length;
  }

  #clearTail() {
    while (this.element.childNodes.length > this.frozenNodes) this.element.lastChild.remove();
  }

  /**
   * How many leading tokens no later text can change: those followed by a token that holds at
   * least one whole line. The last line may still turn into anything (a "*" into emphasis that
   * continues the list before it), so a token that begins on it proves nothing.
   */
  #stableCount(tokens, tail) {
    const lastLine = tail.lastIndexOf("\n") + 1;
    let start = tail.length;
    for (let i = tokens.length - 1; i > 0; i -= 1) {
      start -= tokens[i].raw.length;
      if (tokens[i].type !== "space" && start < lastLine) return i;
    }
    return 0;
  }

  /** A long code block grows by appending to one text node, without parsing it again. */
  #enterFence(token) {
    if (token?.type !== "code") return;
    const open = /^(`{3,}|~{3,})[^\n]*\n/.exec(token.raw);
    if (!open) return;
    const start = this.text.length - token.raw.length;
    if (!this.text.endsWith(token.raw)) return;
    const closing = closingFence(open[1]);
    const lines = token.raw.slice(open[0].length).split("\n");
    if (lines.some((line) => closing.test(line))) return;
    const whole = this.text.lastIndexOf("\n") + 1;
    const node = document.createTextNode(this.text.slice(start + open[0].length, whole));
    this.element.lastChild.querySelector("code").replaceChildren(node);
    this.fence = { node, closing, at: whole };
  }

  #growFence() {
    const whole = this.text.lastIndexOf("\n") + 1;
    const fence = this.fence;
    if (whole <= fence.at) return true;
    const lines = this.text.slice(fence.at, whole);
    if (lines.split("\n").some((line) => fence.closing.test(line))) {
      this.fence = null;
      return false;
    }
    fence.node.appendData(lines);
    fence.at = whole;
    return true;
  }
}

const closingFence = (marker) => new RegExp(`^ {0,3}${marker[0]}{${marker.length},}[ \\t]*$`);
