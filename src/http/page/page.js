// The page: takes in the feed, keeps the list in order, draws what is visible.

import { colours } from "./draw.js";
import { follow, useToken } from "./events.js";
import { History } from "./history.js";
import { Model, count, many, named, rate, size } from "./model.js";
import { Row, say } from "./row.js";
import * as topic from "./topic.js";

const byId = (id) => document.getElementById(id);
/** The order is looked at anew this often at the most: rows must not hop about. */
const SORT_EVERY = 2000;
/** A screen reader is told the figures this often. */
const SUMMARY_EVERY = 30000;
/** A feed that says nothing for so long is told of. */
const SILENCE = 3000;

const model = new Model();
const rows = new Map();
const history = new History(byId("history"));
const list = byId("rows");
let leave = null;
let paused = false;
let sorted = 0;
let summed = performance.now();
let chosen = "";
/** When the feed last said something; infinity while nothing is expected of it. */
let heard = Infinity;
/** Whether the token in use was typed here. */
let tried = false;

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) target.row.see(isIntersecting);
  move();
}, { rootMargin: "120px" });
const sized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const { row } = target;
    row.width = contentRect.width;
    row.update();
  }
  move();
});

// ---- drawing ----

const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
let ink = colours();
let frame = 0;
let last = 0;

dark.addEventListener("change", () => {
  ink = colours();
  for (const row of rows.values()) row.redraw();
  history.draw(ink);
  move();
});

/** Draws until nothing moves any more. */
function move() {
  if (!frame) {
    last = performance.now();
    frame = requestAnimationFrame(draw);
  }
}

function draw(time) {
  const elapsed = Math.min(100, Math.max(1, time - last));
  last = time;
  let moves = false;
  for (const row of rows.values()) moves = row.frame(elapsed, ink, still.matches) || moves;
  topic.showRecords();
  frame = moves ? requestAnimationFrame(draw) : 0;
}

// Records of the topic that is followed may come while nothing else moves.
setInterval(topic.showRecords, 250);

// ---- the feed ----

const WORDS = { open: "live", away: "cut off, trying again", silent: "no word from the server" };

function state(is, text = WORDS[is]) {
  const where = byId("state");
  where.dataset.is = { open: "live", silent: "away" }[is] ?? is;
  say(where, text);
}

function connect() {
  leave?.();
  model.rejoin();
  heard = performance.now();
  leave = follow(import.meta.resolve("./events"), { all: (data) => tick(data, true), some: (data) => tick(data, false) }, (is, status, why) => {
    heard = is === "open" ? performance.now() : Infinity;
    if (is === "over") return refused(status, why);
    state(is);
    if (is === "open") byId("access").hidden = true;
  });
}

function disconnect() {
  leave?.();
  leave = null;
  heard = Infinity;
}

/** Says why, and asks for another token where that helps. */
function refused(status, { code, detail } = {}) {
  const help = {
    unauthorized: tried ? "The server does not know this token." : "This server wants a token.",
    forbidden: `This token lacks the right \`metrics\`, which this page needs.`,
  }[code];
  state("away", help ? "no access" : `refused: ${detail}`);
  if (!help) return;
  say(byId("access-why"), help);
  byId("access").hidden = false;
  byId("token").focus();
}

// The feed ticks four times a second: who says nothing for seconds stands still, or is gone without a word.
setInterval(() => {
  if (performance.now() - heard > SILENCE) state("silent");
}, 1000);

function tick(data, isAll) {
  if (performance.now() - heard > SILENCE) state("open");
  heard = performance.now();
  const moved = model.take(data, isAll);
  for (const [id, row] of rows) if (model.topics.get(id) !== row.topic) drop(id, row);
  for (const known of model.topics.values()) {
    const row = rows.get(known.id);
    if (row) row.update();
    else add(known);
  }
  order(moved);
  totals();
  topic.showFacts(find(byId("name").value));
  move();
}

const find = (name) => {
  for (const known of model.topics.values()) if (known.name === name) return known;
  return null;
};

// ---- the list ----

function add(known) {
  const row = new Row(known, choose);
  rows.set(known.id, row);
  list.append(row.li);
  row.li.hidden = !matches(row);
  mark(row);
  seen.observe(row.li);
  sized.observe(row.canvas);
  row.canvas.row = row;
}

function drop(id, row) {
  seen.unobserve(row.li);
  sized.unobserve(row.canvas);
  // Whoever stood on it stands on its neighbour.
  if (row.li.contains(document.activeElement)) step(row.li, 1) || step(row.li, -1) || byId("filter").focus();
  row.li.remove();
  rows.delete(id);
}

const keys = {
  lag: ({ now }) => now.slow?.[4] ?? 0,
  memory: ({ now }) => now.total,
  rate: (known) => Math.round(known.rate),
  name: () => 0,
};

function order(now = false) {
  const time = performance.now();
  // Nothing moves under the feet of who walks through the list.
  if (list.contains(document.activeElement) && !now) return;
  if (!now && time - sorted < SORT_EVERY) return;
  sorted = time;
  const key = keys[byId("sort").value];
  const wanted = [...rows.values()].map((row) => [key(row.topic), row]);
  wanted.sort(([a, one], [b, other]) => b - a || (one.topic.name < other.topic.name ? -1 : 1));
  const focused = document.activeElement;
  let at = list.firstElementChild;
  for (const [, { li }] of wanted) {
    if (li === at) at = at.nextElementSibling;
    else list.insertBefore(li, at);
  }
  // A row that is moved loses the focus.
  if (focused !== document.activeElement) focused.focus?.({ preventScroll: true });
  tabStop();
}

const matches = (row) => row.topic.name.toLowerCase().includes(byId("filter").value.toLowerCase());

function filter() {
  let left = 0;
  for (const row of rows.values()) {
    row.li.hidden = !matches(row);
    left += row.li.hidden ? 0 : 1;
  }
  none(left);
  tabStop();
}

function none(left) {
  const where = byId("none");
  where.hidden = left > 0;
  say(where, rows.size ? "No topic has that in its name." : "There is no topic yet. Publish a record on this page, and there is one.");
}

/** The list is one stop for the Tab key; arrows go on from there. */
function tabStop() {
  const visible = [...list.children].filter((li) => !li.hidden);
  const at = visible.find((li) => li.contains(document.activeElement)) ?? visible.find((li) => li.row.topic.name === chosen) ?? visible[0];
  for (const li of list.children) li.row.button.tabIndex = li === at ? 0 : -1;
}

function step(from, by) {
  let li = from;
  do li = by > 0 ? li.nextElementSibling : li.previousElementSibling;
  while (li?.hidden);
  if (!li) return false;
  li.row.button.focus();
  tabStop();
  return true;
}

list.addEventListener("keydown", (event) => {
  const here = event.target.closest("li");
  const visible = () => [...list.children].filter((li) => !li.hidden);
  const go = {
    ArrowDown: () => step(here, 1),
    ArrowUp: () => step(here, -1),
    Home: () => visible()[0].row.button.focus(),
    End: () => visible().at(-1).row.button.focus(),
  }[event.key];
  if (!here || !go) return;
  event.preventDefault();
  go();
  tabStop();
});

function choose(name) {
  chosen = name;
  byId("name").value = name;
  for (const row of rows.values()) mark(row);
  topic.showFacts(find(name));
  byId("record").focus();
}

function mark(row) {
  const is = row.topic.name === chosen;
  row.li.toggleAttribute("data-chosen", is);
  if (is) row.button.setAttribute("aria-current", "true");
  else row.button.removeAttribute("aria-current");
}

// ---- totals ----

function totals() {
  const sum = model.totals();
  const [used, limit] = model.memory;
  const shown = model.topics.size;
  say(byId("topics"), shown < model.known ? `${count(shown)} of ${count(model.known)}` : count(shown));
  say(byId("readers"), `${count(sum.cursors)}, ${count(sum.leases)}`);
  say(byId("in"), rate(sum.in));
  say(byId("out"), rate(sum.out));
  say(byId("collected"), rate(sum.collected));
  say(byId("disk"), sum.disk ? size(sum.disk) : "nothing");
  if (history.take(performance.now(), sum.memory, sum.held)) {
    history.draw(ink);
    say(byId("held"), sum.held ? `${size(sum.held)} held back` : "nothing held back");
  }
  say(byId("segments"), `${count(sum.segments)} + ${count(sum.pooled)} pooled`);
  byId("memory").value = used;
  say(byId("memory"), `${size(used)} of ${size(limit)}`);
  byId("memory-bar").value = limit ? used / limit : 0;
  none([...rows.values()].some((row) => !row.li.hidden) ? 1 : 0);
  const time = performance.now();
  if (time - summed < SUMMARY_EVERY) return;
  summed = time;
  let worst = null;
  for (const known of model.topics.values()) if (known.now.slowest && known.now.slowest.bytes > (worst?.now.slowest.bytes ?? 0)) worst = known;
  const slow = worst ? ` In ${named(worst.name)}, ${worst.now.slowest.who} ${worst.now.slowest.count > 1 ? "hold" : "holds"} back ${size(worst.now.slowest.bytes)}.` : "";
  say(byId("summary"), `${many(shown, "topic")}, ${many(sum.cursors, "cursor")}, ${rate(sum.in)} records appended a second, ${size(used)} of memory.${slow}`);
}

// ---- what a user does ----

byId("filter").addEventListener("input", filter);
byId("sort").addEventListener("change", () => order(true));
byId("name").addEventListener("input", () => {
  chosen = byId("name").value;
  for (const row of rows.values()) mark(row);
  topic.showFacts(find(chosen));
});
byId("name").addEventListener("focus", () => {
  const names = [...model.topics.values()].map(({ name }) => name).sort();
  byId("names").replaceChildren(...names.map((name) => new Option(name, name)));
});
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", paused);
  if (!paused) return connect();
  disconnect();
  state("paused", "paused");
});
byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value);
  tried = true;
  connect();
});
// Who does not look costs nothing, and takes no connection away from other tabs.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    disconnect();
  } else if (!paused && !leave) {
    connect();
  }
});

if (matchMedia("(max-width: 60rem)").matches) byId("legend").open = false;
topic.begin();
connect();
