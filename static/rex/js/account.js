// The pages about people: copy what is shown once, and send a form once however often it is pressed.

import { copy, flash } from "./dom.js";

for (const button of document.querySelectorAll("[data-copy]")) {
  const from = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", () => {
    copy(from.textContent).then(
      () => flash(button, button.dataset.done),
      () => flash(button, button.dataset.failed),
    );
  });
}

for (const form of document.querySelectorAll("form[data-once]")) {
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  addEventListener("pageshow", (event) => { if (event.persisted) sent = false; });
}
