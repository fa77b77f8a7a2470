// Draws one topic's segments: the oldest on the left, the open one on the right, then what is off the
// chain; cursors and leases stand on them. What is drawn moves towards what is, a little each frame.

import { count } from "./model.js";

export const TOP = 19; // room for who stands there
export const TALL = 22;
/** All that a drawing takes. */
export const HIGH = 46;
const APART = 9; // two cursors
const FEW = 6; // more than these are a number
const NONE = { places: [], number: 0 };
const WIDEST = 46;
const SMALL = 13; // pooled and unlinked segments
const MOST_SMALL = 8;
/** Milliseconds after which about two thirds of a way are gone. */
const EASE = 85;

/** Colours as the style sheet has them now. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["open", "shared", "held", "kept", "unlinked", "pooled", "cursor", "lease", "ink", "soft", "line", "held-ink"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** What is on the canvas of one topic. */
export class Scene {
  blocks = new Map();

  /** Takes in what the topic is like now, for a canvas of this width. */
  set(now, width) {
    const [, pooled, unlinked] = now.segments;
    this.small = [...few(unlinked, "unlinked"), ...few(pooled, "pooled")];
    const aside = this.small.length ? this.small.length * (SMALL + 3) + 14 : 0;
    const n = now.blocks.length;
    const share = (width - aside - 2) / n;
    const gap = share < 9 ? 1 : 3;
    const wide = Math.max(2, Math.min(WIDEST, share - gap));
    const here = new Set();
    now.blocks.forEach((block, i) => {
      here.add(block.key);
      // Where a lease stands is known of those with a name; the others stand in the middle.
      const place = (at) => (block.records ? Math.min(1, (at - block.first) / block.records) * block.full : 0);
      const places = block.named.map(({ at, held }) => ({ at: place(at), held }));
      if (block.leases > places.length) places.push({ at: 0.5, held: true });
      const leases = { places, number: block.leases > places.length ? block.leases : 0 };
      const target = { x: 1 + i * (wide + gap), wide, full: block.full, seen: 1, is: block.is, leases, folded: block.segments > 1 };
      target.cursors = Math.max(0, block.pins - block.leases);
      target.slow = now.slowest && now.slowest.first >= block.first && now.slowest.first < block.next;
      const drawn = this.blocks.get(block.key);
      if (drawn) drawn.target = target;
      else this.blocks.set(block.key, { ...target, x: target.x + 14, seen: 0, full: this.blocks.size ? 0 : target.full, target });
    });
    for (const [key, drawn] of this.blocks) {
      if (!here.has(key)) drawn.target = { ...drawn.target, seen: 0, cursors: 0, leases: NONE, slow: false, gone: true };
    }
    this.end = 1 + n * (wide + gap);
  }

  /** Moves on by `elapsed` milliseconds; says whether it still moves. */
  step(elapsed) {
    const [most, quick] = [EASE, EASE / 2].map((ease) => 1 - Math.exp(-elapsed / ease));
    let moves = false;
    for (const [key, drawn] of this.blocks) {
      const { target } = drawn;
      for (const name of ["x", "wide", "full", "seen"]) {
        const left = target[name] - drawn[name];
        // What goes is gone before others have taken its place.
        const part = target.gone ? quick : most;
        if (Math.abs(left) < (name === "x" || name === "wide" ? 0.3 : 0.01)) drawn[name] = target[name];
        else {
          drawn[name] += left * part;
          moves = true;
        }
      }
      if (target.gone && drawn.seen < 0.03) this.blocks.delete(key);
    }
    return moves;
  }

  draw(ctx, width, ink) {
    ctx.clearRect(0, 0, width, HIGH);
    ctx.font = "600 11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    const blocks = [...this.blocks.values()];
    // What goes lies behind what moves up.
    for (const block of blocks) if (block.target.gone) this.#block(ctx, block, ink);
    const here = blocks.filter(({ target }) => !target.gone).sort((a, b) => a.x - b.x);
    for (const block of here) this.#block(ctx, block, ink);
    ctx.globalAlpha = 1;
    let free = 0;
    here.forEach((block, i) => {
      if (!carries(block)) return;
      // Up to whoever stands next, a label has room.
      const next = here.slice(i + 1).find(carries);
      free = standing(ctx, block, ink, free, next ? next.x : width);
      if (block.target.slow) reach(ctx, here.slice(i), ink, free);
    });
    this.small.forEach((is, i) => small(ctx, is, this.end + 10 + i * (SMALL + 3), ink));
  }

  #block(ctx, { x, wide, full, seen, target }, ink) {
    const { is, folded, gone } = target;
    // What vanishes at the head sinks.
    const y = TOP + (gone ? (1 - seen) * 8 : 0);
    const round = Math.min(4, wide / 3);
    ctx.globalAlpha = seen;
    if (is === "open") {
      ctx.save();
      box(ctx, x, y, wide, TALL, round);
      ctx.clip();
      ctx.fillStyle = ink.open;
      ctx.fillRect(x, y, wide * full, TALL);
      ctx.restore();
      ctx.strokeStyle = ink.open;
      ctx.lineWidth = Math.min(2, wide / 3);
      const half = ctx.lineWidth / 2;
      box(ctx, x + half, y + half, Math.max(0, wide - 2 * half), TALL - 2 * half, round);
      ctx.stroke();
      return;
    }
    ctx.fillStyle = ink[is];
    box(ctx, x, y, wide, TALL, round);
    ctx.fill();
    if (folded && wide > 4) {
      // Several segments, one behind the other.
      ctx.fillRect(x + round, y + TALL + 1.5, wide - 2 * round, 1.5);
    }
  }
}

function few(number, is) {
  return Array(Math.min(number, MOST_SMALL)).fill(is);
}

function box(ctx, x, y, wide, tall, round) {
  ctx.beginPath();
  ctx.roundRect(x, y, wide, tall, round);
}

/**
 * The cursors and leases on a block: leases where they are, cursors each by itself while there is room, else how many.
 * Draws between `free` and `limit`, and says where it ended.
 */
function standing(ctx, { x, wide, target }, ink, free, limit) {
  const { cursors, leases, slow } = target;
  let [left, right] = [Infinity, x];
  const { places, number } = leases;
  for (const { at, held } of places) {
    const middle = x + Math.min(wide - 3, Math.max(5, at * wide));
    ctx.fillStyle = ctx.strokeStyle = slow ? ink["held-ink"] : ink.lease;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(middle, TOP - 2);
    ctx.lineTo(middle - 4.5, TOP - 7.5);
    ctx.lineTo(middle, TOP - 13);
    ctx.lineTo(middle + 4.5, TOP - 7.5);
    ctx.closePath();
    if (held) ctx.fill();
    else ctx.stroke();
    [left, right] = [Math.min(left, middle - 8), Math.max(right, middle + 8)];
  }
  if (number) {
    const text = count(number);
    ctx.fillStyle = slow ? ink["held-ink"] : ink.lease;
    ctx.fillText(text, right - 1, TOP - 6.5);
    right += ctx.measureText(text).width + 4;
  }
  if (!cursors) return right;
  ctx.fillStyle = slow ? ink["held-ink"] : ink.cursor;
  const room = places.length ? Math.max(limit - right, left - free) : wide;
  const single = cursors === 1 || (cursors <= FEW && cursors * APART <= room + 2);
  const text = single ? "" : count(cursors);
  const needs = single ? cursors * APART - 2 : APART + 1 + ctx.measureText(text).width;
  let from = Math.max(free, x + (wide - needs) / 2);
  // Beside the leases, on the side that has room.
  if (places.length) from = right + needs <= limit || left - needs < free ? right : left - needs;
  if (single) for (let i = 0; i < cursors; i++) dot(ctx, from + 3.2 + i * APART, TOP - 7);
  else dot(ctx, from + 3.2, TOP - 7);
  // Whose number does not fit is still there.
  if (!single && from + needs <= limit) ctx.fillText(text, from + APART + 1, TOP - 6.5);
  return Math.max(right, from + needs + 4);
}

/** Whether anybody stands on it. */
const carries = ({ target }) => target.cursors > 0 || target.leases.places.length > 0;

/** From the slowest to the end of what it holds back. */
function reach(ctx, blocks, ink, from) {
  const held = blocks.filter(({ target }) => target.is === "held");
  const end = held.length ? held.at(-1).x + held.at(-1).wide : 0;
  if (end < from + 6) return;
  ctx.strokeStyle = ink.held;
  ctx.lineWidth = 2;
  ctx.beginPath();
  ctx.moveTo(from + 2, TOP - 7);
  ctx.lineTo(end - 1, TOP - 7);
  ctx.lineTo(end - 1, TOP - 3);
  ctx.stroke();
}

function dot(ctx, x, y) {
  ctx.beginPath();
  ctx.arc(x, y, 3.1, 0, 2 * Math.PI);
  ctx.fill();
}

function small(ctx, is, x, ink) {
  const y = TOP + TALL - SMALL;
  ctx.strokeStyle = ink[is];
  ctx.lineWidth = 1.4;
  ctx.setLineDash(is === "pooled" ? [2.5, 2] : []);
  box(ctx, x, y, SMALL, SMALL, 2.5);
  ctx.stroke();
  ctx.setLineDash([]);
  if (is !== "unlinked") return;
  ctx.save();
  ctx.clip();
  ctx.beginPath();
  for (let i = -SMALL; i < SMALL; i += 5) {
    ctx.moveTo(x + i, y + SMALL);
    ctx.lineTo(x + i + SMALL, y);
  }
  ctx.stroke();
  ctx.restore();
}
