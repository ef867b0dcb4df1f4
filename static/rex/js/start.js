// The start page: the draft survives a reload, ⌘/Ctrl+Enter runs, one press starts one run, and
// the models ticked are no more than the pipeline takes.

import { newKey } from "./commands.js";

const DRAFT = "rex:draft";

function stored(action) {
  try {
    return action(localStorage);
  } catch {
    return null; // storage may be switched off; the form works without it
  }
}

/** The run page calls this: what has been asked is no longer a draft. */
export function forgetDraft(prompt) {
  stored((storage) => {
    if (storage.getItem(DRAFT)?.trim() === prompt.trim()) storage.removeItem(DRAFT);
  });
}

function wire(form) {
  const prompt = form.elements.namedItem("prompt");
  const key = form.elements.namedItem("idempotency_key");
  const button = form.querySelector('[data-part="run"]');
  const hint = form.querySelector('[data-part="hint"]');
  let sent = false;

  const grow = () => {
    prompt.style.setProperty("height", "auto");
    prompt.style.setProperty("height", `${prompt.scrollHeight + 2}px`);
  };
  const ready = () => {
    sent = false;
    button.removeAttribute("aria-disabled");
    key.value = newKey(); // coming back and asking anew is a new run, not a replay of the last
  };

  /** No more models than the pipeline takes: the one just ticked stays, then the first ones. */
  const fit = (ticked) => {
    const { maxModels } = form.querySelector('[name="pipeline"]:checked')?.dataset ?? {};
    if (!maxModels) return;
    const chosen = [...form.querySelectorAll('[name="models"]:checked')];
    chosen.sort((a, b) => (b === ticked) - (a === ticked));
    for (const model of chosen.slice(Number(maxModels))) model.checked = false;
  };

  if (!prompt.value) prompt.value = stored((storage) => storage.getItem(DRAFT)) ?? "";
  grow();
  ready();
  if (hint) hint.hidden = false;

  prompt.addEventListener("input", () => {
    grow();
    stored((storage) => storage.setItem(DRAFT, prompt.value));
  });
  form.addEventListener("change", (event) => {
    if (["pipeline", "models"].includes(event.target.name)) fit(event.target);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
      event.preventDefault();
      form.requestSubmit(button);
    }
  });
  form.addEventListener("submit", (event) => {
    if (sent) {
      event.preventDefault();
      return;
    }
    sent = true;
    button.setAttribute("aria-disabled", "true");
  });
  addEventListener("pageshow", (event) => { if (event.persisted) ready(); });
}

const form = document.getElementById("start-form");
if (form) wire(form);
