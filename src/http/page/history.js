// The memory of the last minutes: all of it, and what the slowest ones hold back.

import { size } from "./model.js";

/** Pixels from one second to the next. */
const STEP = 4;
const HIGH = 44;
/** Seconds that are kept: what a wide screen can show. */
const KEPT = 600;

export class History {
  /** One for each second: bytes, held back; `null` where nobody told. */
  #past = [];
  #second = 0;

  constructor(canvas) {
    this.canvas = canvas;
  }

  /** Takes in what is so now, at `time` in milliseconds; says whether there is anything new to draw. */
  take(time, memory, held) {
    const second = Math.floor(time / 1000);
    if (this.#past.length && second === this.#second) return false;
    const missed = this.#past.length ? Math.min(KEPT, second - this.#second - 1) : 0;
    this.#past.push(...Array(missed).fill(null), [memory, held]);
    this.#past.splice(0, this.#past.length - KEPT);
    this.#second = second;
    return true;
  }

  draw(ink) {
    const { canvas } = this;
    const width = canvas.clientWidth;
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const [wide, tall] = [Math.round(width * scale), Math.round(HIGH * scale)];
    if (!wide) return;
    if (canvas.width !== wide || canvas.height !== tall) Object.assign(canvas, { width: wide, height: tall });
    const ctx = canvas.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    ctx.clearRect(0, 0, width, HIGH);
    const shown = this.#past.slice(-Math.ceil(width / STEP) - 1);
    const most = Math.max(1, ...shown.map((one) => one?.[0] ?? 0));
    // Never from edge to edge: a level that stays is a line below the top.
    const high = (bytes) => HIGH - 1 - (bytes / most) * (HIGH - 8);
    const at = (i) => width - (shown.length - 1 - i) * STEP;
    shown.forEach((one, i) => {
      const before = shown[i - 1];
      if (!one || !before) return;
      area(ctx, at(i - 1), at(i), high(before[0]), high(one[0]), ink.open, 0.16);
      area(ctx, at(i - 1), at(i), high(before[1]), high(one[1]), ink.held, 0.85);
      ctx.globalAlpha = 1;
      ctx.strokeStyle = ink.open;
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      ctx.moveTo(at(i - 1), high(before[0]));
      ctx.lineTo(at(i), high(one[0]));
      ctx.stroke();
    });
    ctx.font = "10px system-ui, sans-serif";
    ctx.textBaseline = "top";
    ctx.fillStyle = ink.soft;
    for (let minute = 1; minute * 60 * STEP < width - 40; minute++) {
      const x = Math.round(width - minute * 60 * STEP);
      ctx.fillRect(x, HIGH - 4, 1, 4);
      ctx.fillText(`−${minute} min`, x + 4, 0);
    }
    const minutes = Math.max(1, Math.round((width / STEP) / 60));
    const last = shown.at(-1) ?? [0, 0];
    const words = `Memory of all topics over the last ${minutes} minutes: at the most ${size(most)}, now ${size(last[0])}, of which the slowest hold back ${size(last[1])}.`;
    if (canvas.getAttribute("aria-label") !== words) canvas.setAttribute("aria-label", words);
  }
}

function area(ctx, from, to, first, second, colour, strength) {
  ctx.globalAlpha = strength;
  ctx.fillStyle = colour;
  ctx.beginPath();
  ctx.moveTo(from, HIGH);
  ctx.lineTo(from, first);
  ctx.lineTo(to, second);
  ctx.lineTo(to, HIGH);
  ctx.fill();
}
