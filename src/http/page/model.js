// What the page knows of the topics: the last tick, and the rates that follow from the ones before.

/** Ticks that a rate is taken over: about two seconds. */
const SPAN = 9;

export class Model {
  topics = new Map();
  memory = [0, 0];
  known = 0;
  seq = 0;

  /** The feed begins again, perhaps with another clock: no rate reaches back behind this. */
  rejoin() {
    for (const { samples } of this.topics.values()) samples.length = 0;
  }

  /** Takes in an event of the feed. Says whether topics came or went. */
  take(data, isAll) {
    const news = JSON.parse(data);
    const here = new Set(news.topics.map((topic) => topic.id));
    const gone = isAll ? [...this.topics.keys()].filter((id) => !here.has(id)) : news.gone;
    let moved = gone.length > 0;
    for (const id of gone) this.topics.delete(id);
    for (const { id, now, ...fixed } of news.topics) {
      let topic = this.topics.get(id);
      // Ids count anew when the feed does, and then they are other topics'.
      const other = topic && fixed.epoch && (topic.epoch !== fixed.epoch || topic.name !== fixed.name);
      if (!topic || other) {
        topic = { id, ...fixed, samples: [], rate: 0, out: 0, collected: 0 };
        this.topics.set(id, topic);
        moved = true;
      }
      topic.now = understand(now);
    }
    for (const topic of this.topics.values()) sample(topic, news.at);
    ({ memory: this.memory, known: this.known, seq: this.seq } = news);
    return moved;
  }

  totals() {
    const sum = { cursors: 0, leases: 0, in: 0, out: 0, segments: 0, pooled: 0, collected: 0, memory: 0, held: 0, disk: 0 };
    for (const { now, rate, out, collected } of this.topics.values()) {
      sum.cursors += now.cursors;
      sum.leases += now.leases;
      sum.in += rate;
      sum.out += out;
      sum.segments += now.segments[0];
      sum.pooled += now.segments[1];
      sum.collected += collected;
      sum.memory += now.total;
      sum.held += now.slowest?.bytes ?? 0;
      sum.disk += now.stored?.[0] ?? 0;
    }
    return sum;
  }
}

function sample(topic, at) {
  const { samples, now } = topic;
  // The feed began anew.
  if (samples.length && samples.at(-1)[0] >= at) samples.length = 0;
  samples.push([at, now.next, now.delivered, now.head]);
  if (samples.length > SPAN) samples.shift();
  const [[began, next, delivered, head]] = samples;
  const seconds = (at - began) / 1000;
  topic.rate = seconds > 0 ? (now.next - next) / seconds : 0;
  topic.out = seconds > 0 ? (now.delivered - delivered) / seconds : 0;
  topic.collected = seconds > 0 ? (now.head - head) / seconds : 0;
}

/** Gives the blocks their numbers, offsets and meanings. */
function understand(now) {
  let segment = now.head;
  let offset = now.first;
  const blocks = now.blocks.map(([segments, records, full, pins]) => {
    const key = Math.floor(segment / now.fold);
    const block = { key: `${now.fold}:${key}`, segment, segments, first: offset, records, full: full / 1000, pins };
    block.next = offset += records;
    segment += segments;
    return block;
  });
  // From the left: kept by retention alone, until somebody stands there; held back by the slowest alone,
  // until somebody else does; then several have to read it.
  let pinned = 0;
  blocks.forEach((block, i) => {
    if (block.pins !== 0) pinned += 1;
    block.is = ["kept", "held", "shared"][Math.min(pinned, 2)];
    if (i === blocks.length - 1) block.is = "open";
  });
  now.total = now.bytes[0] + now.bytes[1] + now.bytes[2];
  now.named ??= [];
  for (const block of blocks) [block.leases, block.named] = [0, []];
  for (const [i, leases] of now.leased ?? []) blocks[i].leases = leases;
  for (const [name, at, held] of now.named) {
    // It lost its place.
    if (at < now.first) continue;
    let i = blocks.findIndex(({ next }) => at < next);
    if (i < 0) i = blocks.length - 1;
    if (i > 0 && at === blocks[i].first && blocks[i].named.length >= blocks[i].leases) i -= 1;
    blocks[i].named.push({ name, at, held });
  }
  return { ...now, blocks, slowest: slowest(now, blocks) };
}

/** Who the slowest is, and what it holds back. */
function slowest(now, blocks) {
  if (!now.slow) return null;
  const [first, next, count, segments, bytes, records] = now.slow;
  const block = blocks.find((block) => first >= block.first && first < block.next) ?? blocks.at(-1);
  const lease = block.named.find(({ at }) => at >= first && at <= next);
  const leases = Math.min(count, block.leases) - (lease ? 1 : 0);
  const cursors = count - Math.min(count, block.leases);
  const all = [
    lease && `lease ${named(lease.name)}${lease.held ? "" : " (nobody holds it)"}`,
    leases > 0 && (lease ? `${leases} more` : many(leases, "lease")),
    cursors > 0 && many(cursors, "cursor"),
  ].filter(Boolean);
  const who = all.length < 3 ? all.join(" and ") : `${all[0]}, ${all[1]} and ${all[2]}`;
  return { who, count, first, segments, bytes, records };
}

/**
 * A name of somebody's choice, as it may stand in a line: what cannot be seen and would turn the direction of the
 * text is written out, so that no name can pass for another one or for the words around it.
 */
export const plain = (name) => name.replace(/[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g, (mark) => `⟨U+${mark.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

/** The same within a sentence, whose own direction stays what it is. */
export const named = (name) => `\u2068${plain(name)}\u2069`;

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${UNITS[unit]}`;
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (number) => WHOLE.format(number);
export const rate = (number) => (number >= 10000 ? SHORT.format(number) : number > 0 && number < 10 ? number.toFixed(1) : WHOLE.format(number));
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;
