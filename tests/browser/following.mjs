// What every way for a page to follow a topic is put through: connections that are cut at random, a server
// that is killed. The page keeps in `window.seen` what came: `records` as [position, text], `gaps`, and how
// often it `opened` a stream.

import assert from "node:assert/strict"
import { Proxy, Server, lots, seed, sleep, until } from "./harness.mjs"

export const TOPIC = "followed"
const PUBLISHED = 3_000
const CUTS = 6

/** Publishes while it goes on, and notes where each record that was acknowledged went. */
class Publisher {
  acknowledged = []
  sent = new Set()
  stopped = false

  constructor(server, draw, total) {
    this.done = this.#run(server, draw, total)
  }

  async #run(server, draw, total) {
    let n = 0
    while (n < total && !this.stopped) {
      const batch = Array.from({ length: draw.between(1, 8) }, () => `record ${n++} ${"x".repeat(draw.between(0, 60))}`)
      batch.forEach((record) => this.sent.add(record))
      try {
        const { epoch, first_offset: first } = await server.publish(TOPIC, batch)
        batch.forEach((record, i) => this.acknowledged.push({ epoch, offset: first + i, record }))
      } catch (error) {
        // The server is dead or dies: what becomes of this batch nobody knows.
        if (error.status) throw error
        await sleep(20)
      }
      if (n % 40 < 8) await sleep(draw.between(1, 20))
    }
  }
}

/** Every record that was acknowledged came once, as it was sent, or lies in a gap that was named. */
function check(seen, publisher) {
  const got = new Map()
  let before = null
  for (const [id, record] of seen.records) {
    assert.ok(!got.has(id), `${id} came twice`)
    got.set(id, record)
    assert.ok(publisher.sent.has(record), `nobody sent ${record}`)
    const [epoch, offset] = [id.split(":")[0], Number(id.split(":")[1])]
    if (before?.epoch === epoch) assert.ok(offset > before.offset, `${id} came behind ${before.offset}`)
    before = { epoch, offset }
  }
  const missed = ({ epoch, offset }) =>
    seen.gaps.some((gap) =>
      gap.reason === "other-epoch"
        ? (epoch === gap.of_epoch && offset >= gap.first_missed) || (epoch === gap.epoch && offset < gap.next_offset)
        : epoch === gap.epoch && offset >= gap.first_missed && offset < gap.next_offset,
    )
  let inGaps = 0
  for (const acknowledged of publisher.acknowledged) {
    const id = `${acknowledged.epoch}:${acknowledged.offset}`
    const came = got.has(id)
    assert.ok(came !== missed(acknowledged), `${id} ${came ? "came, and was said to be missed" : "is missing, and no gap says so"}`)
    if (came) assert.equal(got.get(id), acknowledged.record)
    else inGaps += 1
  }
  return inGaps
}

/** Waits until the page has the last record that was acknowledged. */
async function caughtUp(page, publisher) {
  const { epoch, offset } = publisher.acknowledged.at(-1)
  await until("the last record", () => page.evaluate((id) => window.seen.records.at(-1)?.[0] === id, `${epoch}:${offset}`))
  return page.evaluate(() => window.seen)
}

/** A page that `follow`s through a proxy that cuts its connections. What came, and what was missed. */
async function cutAtRandom(follow, settings, stream) {
  const draw = lots(seed + stream)
  const server = await new Server().start()
  const proxy = await Proxy.start(server)
  try {
    await server.make(TOPIC, settings)
    const page = await follow(proxy)
    await until("the stream", () => page.evaluate(() => window.seen.opened > 0))
    // The first one in the head of the answer: Chromium takes what is there of it for all of it.
    const most = () => (proxy.cuts === 0 ? 50 : 12_000)
    proxy.cut(() => (proxy.cuts < CUTS ? draw.between(1, most()) : Infinity))
    const publisher = new Publisher(server, draw, PUBLISHED)
    await publisher.done
    // Records that only come late enough for the last cuts.
    for (let n = 0; proxy.cuts < CUTS && n < 300; n++) {
      const batch = Array.from({ length: 20 }, (_, i) => `late ${n} ${i} ${"y".repeat(40)}`)
      batch.forEach((record) => publisher.sent.add(record))
      const { epoch, first_offset: first } = await server.publish(TOPIC, batch)
      batch.forEach((record, i) => publisher.acknowledged.push({ epoch, offset: first + i, record }))
      await sleep(200)
    }
    const seen = await caughtUp(page, publisher)
    return { seen, publisher, missed: check(seen, publisher), cuts: proxy.cuts }
  } finally {
    proxy.stop()
    await server.kill()
  }
}

/** A page that `follow`s while the server is killed and started again, three times. */
export async function killed(follow, stream) {
  const draw = lots(seed + stream)
  const server = await new Server(["--topic-retention", "everything"]).start()
  const proxy = await Proxy.start(server)
  try {
    await server.make(TOPIC, {})
    const page = await follow(proxy)
    await until("the stream", () => page.evaluate(() => window.seen.opened > 0))
    const publisher = new Publisher(server, draw, Infinity)
    for (let life = 0; life < 3; life++) {
      await until("some records", () => page.evaluate((least) => window.seen.records.length > least, (life + 1) * 400))
      // While the page is away, records come that it will never see.
      if (life > 0) proxy.cut(() => 0)
      await sleep(draw.between(50, 300))
      await server.kill()
      const dead = new Set(publisher.acknowledged.map(({ epoch }) => epoch)).size
      await sleep(draw.between(0, 500))
      await server.start()
      proxy.cut(() => Infinity)
      await until("records of the new life", () => new Set(publisher.acknowledged.map(({ epoch }) => epoch)).size > dead)
      await until("the gap", () => page.evaluate((gaps) => window.seen.gaps.length >= gaps, life + 1))
    }
    publisher.stopped = true
    await publisher.done
    const seen = await caughtUp(page, publisher)
    const missed = check(seen, publisher)
    assert.deepEqual(seen.gaps.map(({ reason }) => reason), ["other-epoch", "other-epoch", "other-epoch"])
    assert.ok(missed > 0)
    console.log(`3 kills, ${seen.records.length} records once, ${missed} in ${seen.gaps.length} gaps`)
  } finally {
    proxy.stop()
    await server.kill()
  }
}

/** Cut at random, with everything kept: every record once, and no gap. */
export async function allOnce(follow, stream) {
  const { seen, missed, cuts, publisher } = await cutAtRandom(follow, { retention: "everything" }, stream)
  assert.equal(cuts, CUTS)
  assert.deepEqual(seen.gaps, [])
  assert.equal(missed, 0)
  assert.equal(seen.records.length, publisher.acknowledged.length)
  console.log(`${cuts} cuts, ${seen.records.length} records, all once`)
}

/** Cut at random, with little kept: every record once, or in a gap that is named. The gaps. */
export async function onceOrInGaps(follow, stream) {
  const { seen, missed, cuts } = await cutAtRandom(follow, { retention: { records: 100 }, segment_bytes: 4096 }, stream)
  assert.equal(cuts, CUTS)
  console.log(`${cuts} cuts, ${seen.records.length} records, ${missed} in ${seen.gaps.length} gaps`)
  assert.ok(seen.gaps.every((gap) => gap.reason === "collected"), JSON.stringify(seen.gaps))
  return seen.gaps
}
