// One topic in the list: its name, its figures, the drawing, and the same in words. Whatever comes from
// a topic is set as text.

import { HIGH, Scene } from "./draw.js";
import { count, many, plain, rate, size } from "./model.js";

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Sets a text if it is another one: the browser then has nothing to do for most of them. */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

export class Row {
  visible = false;
  #scene = new Scene();
  #stale = true;
  /** Nothing has changed since the last frame that was drawn. */
  #still = false;
  /** What was shown last, and for what width. */
  #shown = null;
  #fits = 0;

  constructor(topic, choose) {
    this.topic = topic;
    this.button = element("button", { type: "button", tabindex: "-1" }, plain(topic.name));
    this.button.addEventListener("click", () => choose(topic.name));
    this.rate = element("span");
    this.out = element("span");
    this.bar = element("meter", { min: 0, max: 1, "aria-hidden": "true" });
    this.memory = element("data");
    this.limit = element("span");
    this.canvas = element("canvas", { role: "img" });
    this.what = element("p", { class: "what" });
    const memory = element("span", {}, this.bar, this.memory, " ", this.limit);
    const head = element("div", { class: "head" }, element("h3", {}, this.button), this.rate, this.out, memory);
    this.li = element("li", {}, head, this.canvas, this.what);
    this.li.row = this;
  }

  /** Takes in what the topic is like now. Nothing is done for what nobody sees. */
  update() {
    this.#stale = true;
    if (this.visible) this.#show();
  }

  see(visible) {
    this.visible = visible;
    this.redraw();
    if (visible && this.#stale) this.#show();
    // A canvas that nobody sees keeps no pixels.
    if (!visible) this.canvas.width = this.canvas.height = 0;
  }

  /** What is on the canvas is gone, or has other colours now. */
  redraw() {
    this.#still = false;
  }

  #show() {
    this.#stale = false;
    const { now, limit } = this.topic;
    say(this.rate, `${rate(this.topic.rate)} in / s`);
    say(this.out, `${rate(this.topic.out)} out / s`);
    // The rates go on falling for a while; of a topic that nothing happens to, nothing else changes.
    if (now === this.#shown && this.width === this.#fits) return;
    [this.#shown, this.#fits] = [now, this.width];
    if (this.memory.value !== String(now.total)) {
      this.memory.value = now.total;
      this.memory.title = `${count(now.total)} bytes: live ${count(now.bytes[0])}, pooled ${count(now.bytes[1])}, unlinked ${count(now.bytes[2])}`;
      say(this.memory, size(now.total));
      this.bar.value = now.total / limit;
    }
    say(this.limit, `of ${size(limit)}`);
    const words = inWords(now);
    say(this.what, words.short);
    this.what.toggleAttribute("data-slow", Boolean(now.slowest));
    if (this.canvas.getAttribute("aria-label") !== words.drawing) this.canvas.setAttribute("aria-label", words.drawing);
    if (this.width) this.#scene.set(now, this.width);
    this.#still = false;
  }

  /** Draws the next frame; says whether there is more to move. */
  frame(elapsed, ink, still) {
    if (!this.visible || this.#stale || this.#still || !this.width) return false;
    const { canvas } = this;
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const [wide, tall] = [Math.round(this.width * scale), Math.round(HIGH * scale)];
    if (canvas.width !== wide || canvas.height !== tall) {
      Object.assign(canvas, { width: wide, height: tall });
    }
    const moves = this.#scene.step(still ? Infinity : elapsed);
    const ctx = canvas.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    this.#scene.draw(ctx, this.width, ink);
    this.#still = !moves;
    return moves;
  }
}

/** The topic in words: a line under the drawing, and what the drawing shows. */
function inWords(now) {
  const [live, pooled, unlinked] = now.segments;
  const full = `${Math.round(now.blocks.at(-1).full * 100)} % full`;
  const who = [now.cursors && many(now.cursors, "cursor"), now.leases && many(now.leases, "lease")].filter(Boolean).join(", ") || "nobody reads it";
  const slow = now.slowest && `${now.slowest.who} ${now.slowest.count > 1 ? "hold" : "holds"} back ${many(now.slowest.segments, "segment")}, ${size(now.slowest.bytes)}, ${many(now.slowest.records, "record")}`;
  const first = live > 1 ? `${count(live)} segments` : "1 segment";
  const disk = now.stored && `${size(now.stored[0])} on the disk`;
  const short = [now.failed && "takes no records: the disk has failed", now.closed && "closed", slow, slow ? `${first}; ${who}` : `${first}, ${full}; ${who}`, disk, now.evicted && `${many(now.evicted, "place")} lost by eviction`];
  const drawing = [disk, `${many(live - 1, "sealed segment")}, the open one ${full}`, `${pooled} pooled, ${unlinked} unlinked`, who, slow ? `slowest: ${slow}` : "nobody is behind the open segment"];
  return { short: short.filter(Boolean).join(" · "), drawing: `${drawing.filter(Boolean).join("; ")}.` };
}
