// Publishing to a topic, and following one.

import { follow, headers, reason } from "./events.js";
import { count, many, named, plain, size } from "./model.js";
import { element, say } from "./row.js";

const byId = (id) => document.getElementById(id);
/** Records that stay on the page. */
const KEPT = 200;
/** Lines that wait to be shown at the most; what comes faster is counted. */
const PENDING = 400;

let stop = null;
let followed = "";
let pending = [];
let passed = 0;
let received = 0;

/** Where a topic is; `null` if no browser can ask for it. */
function path(name) {
  // A browser goes up a folder instead. And halves of a character are no text.
  if (name === "." || name === ".." || !name.isWellFormed()) return null;
  return import.meta.resolve("../topics/") + encodeURIComponent(name);
}

/** The topic that is named, and where it is; says in line `where` if there is none. */
function chosen(where) {
  const name = byId("name").value;
  const at = name && path(name);
  if (at) return [name, at];
  byId("name").focus();
  status(where, name ? "A browser cannot ask for a topic of this name." : "Name a topic first.", "bad");
  return [];
}

function status(where, text, is = "") {
  const line = byId(where);
  say(line, text);
  line.dataset.is = is;
}

/** Shows what is known of the topic that is named. */
export function showFacts(topic) {
  const facts = byId("facts");
  facts.hidden = !topic;
  if (!topic) return;
  const { now } = topic;
  const kept = typeof topic.retention === "string" ? topic.retention : Object.entries(topic.retention)[0].reverse().join(" ").replace("_", " ");
  const [bytes, files, from, durable, readers] = now.stored ?? [];
  const disk = now.stored && `${size(bytes)} of ${size(topic.disk)}${bytes >= topic.disk * 0.8 ? ` (${Math.floor(bytes / topic.disk * 100)} %)` : ""} in ${many(files, "file")}, from record ${count(from)}; all before ${count(durable)} is forced to it${readers ? `; ${many(readers, "subscriber")} ${readers === 1 ? "reads" : "read"} from it` : ""}${now.failed ? `; it has failed: ${plain(now.failed)}` : ""}`;
  const lines = {
    durability: topic.durability,
    epoch: topic.epoch,
    offsets: now.next > now.first ? `${count(now.first)} to ${count(now.next - 1)}` : `none kept, next is ${count(now.next)}`,
    segments: `${count(now.segments[0])} of ${size(topic.segment)}, ${now.segments[1]} pooled, ${now.segments[2]} unlinked`,
    "on the disk": disk || "",
    kept: `${kept}; at the limit: ${topic.overflow}`,
    leases: now.named.map(([name, at, held]) => `${named(name)} at ${count(at)}${held ? "" : ", detached"}${at < now.first ? ", lost its place" : ""}`).join("; ") + (now.leases > now.named.length ? ` and ${now.leases - now.named.length} more` : ""),
  };
  for (const [name, text] of Object.entries(lines)) {
    let line = facts.querySelector(`[data-fact="${name}"]`);
    if (!line) {
      line = element("dd", { "data-fact": name });
      facts.append(element("dt", {}, name), line);
    }
    say(line, text || "none");
  }
}

async function publish(event) {
  event.preventDefault();
  const [name, at] = chosen("published");
  if (!name) return;
  try {
    const body = new Blob([byId("record").value]);
    const answer = await fetch(at, { method: "POST", headers: headers(), body });
    const said = await reason(answer);
    if (!answer.ok) return status("published", `Not published: ${said.detail}`, "bad");
    status("published", `Published to ${named(name)} as record ${count(said.first_offset)}.`, "good");
    byId("record").value = "";
  } catch {
    status("published", "No answer: it may or may not be published.", "bad");
  }
}

function line(kind, label, text) {
  received += kind === "" ? 1 : 0;
  pending.push([kind, label, text]);
  if (pending.length > PENDING) passed += pending.splice(0, pending.length - KEPT).length;
}

/** Puts on the page what came since the last frame. */
export function showRecords() {
  if (!pending.length) return;
  const [list, around] = [byId("records"), byId("stream")];
  const atEnd = around.scrollHeight - around.scrollTop - around.clientHeight < 24;
  const lines = pending.map(([kind, label, text]) => element("li", kind ? { "data-kind": kind } : {}, element("span", {}, label), element("span", {}, text)));
  if (passed) lines.unshift(element("li", { "data-kind": "passed" }, element("span", {}, "…"), element("span", {}, `${count(passed)} came too fast to be shown`)));
  pending = [];
  passed = 0;
  list.append(...lines);
  while (list.childElementCount > KEPT) list.firstElementChild.remove();
  if (atEnd) around.scrollTop = around.scrollHeight;
  // Not in the line that is read out: it would be read out with every frame.
  say(byId("received"), received ? `${many(received, "record")} received` : "");
}

const offset = (id) => id.slice(id.indexOf(":") + 1);

function bytes(base64) {
  const raw = atob(base64);
  const shown = Array.from(raw.slice(0, 48), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
  return `${raw.length} bytes: ${shown}${raw.length > 48 ? " …" : ""}`;
}

const shorten = (text) => (text.length > 2000 ? `${text.slice(0, 2000).toWellFormed()} … (${count(text.length)} characters)` : text);

function gap(data) {
  const { reason, first_missed: first, next_offset: next, of_epoch: old } = JSON.parse(data);
  const what = old
    ? `the topic was recreated: all from ${count(first)} on in epoch ${old}, and what the new one had before ${count(next)}`
    : `${reason}: records ${count(first)} to ${count(next - 1)}`;
  line("gap", "gap", `missed ${what}`);
  // Told to a screen reader, too: the list itself is too fast for that.
  status("following", `Gap in ${named(followed)}: ${what}.`, "bad");
}

function end(text) {
  stop?.();
  stop = null;
  showRecords();
  status("following", text);
  say(byId("follow-button"), "Follow");
}

function toggle(event) {
  event.preventDefault();
  if (stop) return end(`Followed ${named(followed)}.`);
  const [name, at] = chosen("following");
  if (!name) return;
  followed = name;
  say(byId("received"), "");
  byId("records").replaceChildren();
  [pending, passed, received] = [[], 0, 0];
  const from = byId("from").value;
  const on = {
    message: (data, id) => line("", offset(id), shorten(data)),
    base64: (data, id) => line("", offset(id), bytes(data)),
    "caught-up": (data) => line("caught-up", "–", `caught up at ${count(JSON.parse(data).next_offset)}`),
    gap,
    end: (data) => {
      const { reason } = JSON.parse(data);
      line("end", "end", reason);
      // A server that ends comes back, perhaps, and so does the stream.
      if (reason !== "shutting-down") end(`The topic ${named(followed)} is ${reason}.`);
    },
  };
  stop = follow(`${at}/events?from=${encodeURIComponent(from)}`, on, (state, code, why) => {
    if (state === "open") status("following", `Following ${named(followed)}.`, "good");
    if (state === "away") status("following", "Cut off; it goes on where it was when the server is back.", "bad");
    if (state === "over") end(code === 204 ? `The topic ${named(followed)} is closed.` : `Refused: ${why.detail}`);
  });
  say(byId("follow-button"), "Stop");
}

export function begin() {
  byId("publish").addEventListener("submit", publish);
  byId("follow").addEventListener("submit", toggle);
  byId("record").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("publish").requestSubmit();
  });
}
