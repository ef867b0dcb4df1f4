// Follow the newest text inside a scrolling panel until the reader says otherwise.
// Any upward movement releases at once; only the very bottom (or the button) takes hold again.

const BOTTOM_PX = 8;

export class Follow {
  constructor(panel, button) {
    this.panel = panel;
    this.button = button;
    this.held = true;
    this.lastTop = panel.scrollTop;
    panel.addEventListener("wheel", (event) => { if (event.deltaY < 0) this.#release(); },
      { passive: true });
    panel.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button?.addEventListener("click", () => {
      this.held = true;
      this.update();
      panel.focus({ preventScroll: true });
    });
  }

  /** Call after drawing: go to the newest line, or show that there is one. */
  update() {
    const { panel } = this;
    if (this.held) {
      panel.scrollTop = panel.scrollHeight;
      this.lastTop = panel.scrollTop;
    }
    if (this.button) this.button.hidden = this.held || this.#atBottom();
  }

  #atBottom() {
    const { panel } = this;
    return panel.scrollHeight - panel.clientHeight - panel.scrollTop <= BOTTOM_PX;
  }

  #scrolled() {
    const top = this.panel.scrollTop;
    if (top < this.lastTop) this.#release();
    else if (this.#atBottom()) this.held = true;
    this.lastTop = top;
    if (this.button) this.button.hidden = this.held || this.#atBottom();
  }

  #release() {
    if (this.panel.scrollHeight > this.panel.clientHeight) this.held = false;
  }
}
