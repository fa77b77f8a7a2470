// The live page while the collection works: what it draws and says is what is so, it stays in bounds with 200
// topics and 1,000 cursors, and it comes back from whatever happens to its server.

import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { Server, Subscriber, browser, later, seed, sleep, until, watched } from "./harness.mjs"
import { Load, SETTINGS } from "./load.mjs"
import { counting, drawn, feed, figures, known, measure, row, shows, words } from "./look.mjs"

const TOPICS = 200
const CURSORS = 1000
console.log(`PSA_TEST_SEED=${seed}`)
let chromium
before(async () => (chromium = await browser()))
after(() => chromium?.close())

/** A server and the page on it; both end with the test. */
async function opened(t, { settings = SETTINGS, context = {}, prepare = () => {} } = {}) {
  const server = await new Server(settings).start()
  later(t, () => server.kill())
  const around = await chromium.newContext({ viewport: { width: 1240, height: 860 }, ...context })
  later(t, () => around.close())
  await around.addInitScript(counting)
  await prepare(server)
  return { server, ...(await watched(around, server.url)) }
}

/** Publishes until the page says that somebody holds the topic back. */
async function heldBack(server, page, topic, records) {
  await until(`${topic} to be held back`, async () => {
    if ((await words(page, topic)).includes("back")) return true
    await server.publish(topic, records)
    await sleep(300)
  })
}

/** Waits until the page knows what the server says of a topic, and gives that. */
async function same(server, page, topic) {
  let said
  await until(`the page's figures of ${topic}`, async () => {
    said = await server.describe(topic)
    const now = await known(page, topic)
    return now && now.next === said.next_offset && now.first === said.first_offset && now.total === said.live_bytes + said.pooled_bytes + said.unlinked_bytes && now.cursors === said.cursors
  })
  return said
}

const kinds = (blocks) => blocks?.map(({ is }) => is)
const number = (text) => Number(text.replaceAll(",", ""))

test("segments come at the tail, are held back by one who stalls, and go at the head as it passes", async (t) => {
  const { server, page, faults } = await opened(t)
  await server.make("t", { segment_bytes: 65536, memory_limit: 16 << 20, overflow: "evict", retention: "nothing" })
  const quick = await Subscriber.open(server, "t")
  const stalled = await Subscriber.open(server, "t")
  later(t, () => [quick, stalled].forEach((subscriber) => subscriber.close()))
  await shows(page, 1)
  // Both have read everything: the open segment is all there is.
  await server.publish("t", ["x".repeat(8000)])
  await until("the record", async () => (await known(page, "t")).next === 1)
  await until("the drawing", async () => kinds(await drawn(page, "t"))?.join() === "open")
  assert.match(await words(page, "t"), /^1 segment, 1[23] % full; 2 cursors$/)

  // One stops taking. What the kernel's buffers do not hold is held back in the log.
  stalled.stall()
  await page.evaluate(() => {
    window.ends = []
    window.sample = () => {
      const { head, blocks } = document.querySelector("#rows > li").row.topic.now
      window.ends.push([head, head + blocks.reduce((sum, { segments }) => sum + segments, 0)])
    }
    // Also now and at the end: on a busy machine, the timer comes late.
    window.sample()
    setInterval(window.sample, 50)
  })
  await heldBack(server, page, "t", Array(16).fill("y".repeat(8000)))
  await until("some segments of it", async () => {
    if ((await server.describe("t")).slowest?.segments >= 6) return true
    await server.publish("t", Array(8).fill("z".repeat(8000)))
    await sleep(100)
  })
  let said = await same(server, page, "t")
  const { segments, bytes, records } = said.slowest
  assert.equal(said.slowest.cursors, 1)
  assert.ok(segments >= 5, `${segments} held back`)
  const line = await words(page, "t")
  const told = line.match(/^1 cursor holds back ([\d,]+) segments?, ([\d.]+ [KM]iB), ([\d,]+) records? · ([\d,]+) segments; 2 cursors$/)
  assert.ok(told, line)
  assert.deepEqual([told[1], told[3], told[4]].map(number), [segments, records, said.live_segments])
  assert.equal(told[2], await page.evaluate(async (bytes) => (await import("/live/model.js")).size(bytes), bytes))
  await until("all that is held back is drawn so", async () => kinds(await drawn(page, "t"))?.join() === [...Array(segments).fill("held"), "open"].join())
  // It may still be reading the last of it.
  await until("the other one to stand on the open one", async () => (await drawn(page, "t")).at(-1).above.join() === "cursor")
  const blocks = await drawn(page, "t")
  assert.deepEqual(new Set(blocks[0].above), new Set(["held-ink", "held"]), "the one who holds back stands on the oldest")
  for (const { above } of blocks.slice(1, -1)) assert.deepEqual(above, ["held"], "a line goes from one end of what is held back to the other")
  assert.match(await row(page, "t").locator("canvas").getAttribute("aria-label"), new RegExp(`^${segments} sealed segments, the open one .*; slowest: 1 cursor holds back`))

  // It goes on: what it passes goes, from the left.
  stalled.goOn()
  await until("nothing held back", async () => !(await words(page, "t")).includes("back"))
  await until("the drawing", async () => kinds(await drawn(page, "t"))?.join() === "open")
  said = await same(server, page, "t")
  assert.equal(said.slowest, null)
  const ends = await page.evaluate(() => (window.sample(), window.ends))
  const heads = ends.map(([head]) => head)
  const tails = ends.map(([, tail]) => tail)
  for (const [which, seen] of Object.entries({ heads, tails })) assert.deepEqual(seen, [...seen].sort((a, b) => a - b), `${which} only go on`)
  assert.ok(heads.at(-1) - heads[0] >= segments && tails.at(-1) - tails[0] >= segments)
  assert.deepEqual(await faults(), [])
})

test("a lease that nobody holds is named as what holds back", async (t) => {
  const { server, page, faults } = await opened(t)
  await server.make("t", { segment_bytes: 4096, memory_limit: 1 << 20, overflow: "evict", retention: "nothing" })
  const holder = server.run("sub", "t", "--lease", "billing", "--lease-ttl", "10m", "--server", server.binary)
  later(t, () => holder.kill("SIGKILL"))
  await until("the lease", async () => (await server.describe("t")).leases[0]?.held)
  await shows(page, 1)
  await until("its drawing", async () => (await drawn(page, "t"))?.[0]?.above.includes("lease"))
  holder.kill("SIGKILL")
  await until("its end", async () => !(await server.describe("t")).leases[0].held)
  for (let n = 0; n < 7; n++) await server.publish("t", Array(3).fill("x".repeat(1000)))
  await until("its name", async () => (await words(page, "t")).includes("lease \u2068billing\u2069 (nobody holds it) holds back"))
  const { slowest } = await same(server, page, "t")
  await until("the drawing", async () => kinds(await drawn(page, "t"))?.join() === [...Array(slowest.segments).fill("held"), "open"].join())

  // From where a second one stands, it is no longer the first one alone that is waited for.
  const second = server.run("sub", "t", "--lease", "search", "--lease-ttl", "10m", "--server", server.binary)
  later(t, () => second.kill("SIGKILL"))
  // With all that is there: one that is killed in between may stand at the end of a segment, or at the beginning of the next.
  await until("the second lease", async () => {
    const { leases, next_offset } = await server.describe("t")
    return leases.find(({ name }) => name === "search")?.committed === next_offset
  })
  second.kill("SIGKILL")
  await until("its end", async () => (await server.describe("t")).leases.every(({ held }) => !held))
  for (let n = 0; n < 5; n++) await server.publish("t", Array(3).fill("x".repeat(1000)))
  const said = await same(server, page, "t")
  const { committed } = said.leases.find(({ name }) => name === "search")
  const { blocks } = await known(page, "t")
  // Who has read a segment to its end stands in it until there is more.
  const where = blocks.findIndex(({ next }) => next >= committed)
  const expected = blocks.map((_, i) => (i === blocks.length - 1 ? "open" : i < where ? "held" : "shared"))
  assert.ok(expected.includes("held") && expected.includes("shared"), expected.join())
  await until(`the drawing: ${expected}`, async () => kinds(await drawn(page, "t"))?.join() === expected.join())
  assert.deepEqual(await faults(), [])
})

test("what a retention rule alone keeps is drawn so, and memory is what the server says", async (t) => {
  const { server, page, faults } = await opened(t)
  await server.make("t", { segment_bytes: 4096, memory_limit: 1 << 20, overflow: "evict", retention: { records: 16 } })
  const reader = await Subscriber.open(server, "t")
  later(t, () => reader.close())
  for (let n = 0; n < 10; n++) await server.publish("t", Array(3).fill("x".repeat(1000)))
  await shows(page, 1)
  const said = await same(server, page, "t")
  const kept = said.live_segments - 1
  assert.ok(kept >= 4)
  await until("the drawing", async () => kinds(await drawn(page, "t"))?.join() === [...Array(kept).fill("kept"), "open"].join())
  const memory = row(page, "t").locator("data")
  assert.equal(Number(await memory.getAttribute("value")), said.live_bytes + said.pooled_bytes + said.unlinked_bytes)
  assert.equal(await memory.getAttribute("title"), `${[said.live_bytes + said.pooled_bytes + said.unlinked_bytes, said.live_bytes, said.pooled_bytes, said.unlinked_bytes].map((bytes) => bytes.toLocaleString("en")).join("|").replace(/^(.*)\|(.*)\|(.*)\|(.*)$/, "$1 bytes: live $2, pooled $3, unlinked $4")}`)
  const metrics = await (await fetch(`${server.url}/metrics`)).text()
  assert.equal(await page.locator("#memory").evaluate((data) => data.value), metrics.match(/^psa_memory_used_bytes (\d+)/m)[1])
  // A topic that goes is gone from the page, and one that comes is there.
  await server.ask("DELETE", "/topics/t")
  await shows(page, 0)
  await until("a word about it", async () => (await page.locator("#none").textContent()).startsWith("There is no topic yet"))
  await server.make("u", {})
  await shows(page, 1)
  assert.deepEqual(await faults(), [])
})

test(`${TOPICS} topics and ${CURSORS} cursors under load: all are there, and only what is seen costs something`, async (t) => {
  let load
  const { server, page, faults } = await opened(t, {
    prepare: async (server) => {
      load = await Load.start(server, { topics: TOPICS, cursors: CURSORS, seed })
      later(t, () => load.stop())
    },
  })
  await shows(page, TOPICS)
  await until("all cursors", async () => (await page.locator("#readers").textContent()).startsWith("1,000,"))
  assert.equal(await page.locator("#topics").textContent(), "200")
  const names = await page.locator("#rows h3").allTextContents()
  assert.deepEqual(names.sort(), [...load.topics].sort())

  const found = await measure(page, 5)
  for (const line of figures(found)) console.log(line.join(": "))
  assert.ok(found.draws > 0 && found.frames > 0)
  // What is drawn is what is seen, or nearly: the others keep no pixels, and their words are not touched.
  const { onScreen, pixels } = await page.evaluate(() => {
    const rows = [...document.querySelectorAll("#rows > li")]
    const near = ({ top, bottom }) => bottom > -160 && top < innerHeight + 160
    return { onScreen: rows.filter((li) => near(li.getBoundingClientRect())).length, pixels: rows.filter((li) => li.querySelector("canvas").width > 0).length }
  })
  assert.ok(onScreen < 16 && pixels <= onScreen, `${pixels} canvases with pixels, ${onScreen} near the screen`)
  assert.ok(found.most <= onScreen, `${found.most} drawn in a frame, ${onScreen} near the screen`)
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length)
  assert.ok(nodes < 20 * TOPICS + 300, `${nodes} elements`)

  const events = await feed(server, 12)
  const [all, ...some] = events
  assert.equal(all.kind, "all")
  assert.equal(all.data.topics.length, TOPICS)
  assert.ok(some.every(({ kind }) => kind === "some"))
  console.log(`the feed: ${all.bytes} bytes for all, then ${some.map(({ bytes }) => bytes).join(" ")}`)
  for (const { bytes, data } of events) assert.ok(bytes < 256 + data.topics.length * 2304, `${bytes} bytes for ${data.topics.length} topics`)

  // One who stalls among a thousand is found: it comes first in the list.
  const topic = load.topics[3]
  load.of(topic)[0].stall()
  await heldBack(server, page, topic, Array(20).fill("s".repeat(2000)))
  await until("it comes first", async () => (await page.locator("#rows > li h3").first().textContent()) === topic)
  load.of(topic)[0].goOn()

  // At rest, each topic's memory is what the server says.
  await load.rest()
  for (const name of load.topics) {
    const said = await same(server, page, name)
    if (load.topics.indexOf(name) % 20) continue
    await row(page, name).scrollIntoViewIfNeeded()
    const shown = row(page, name).locator("data")
    await until(`${name} to be shown`, async () => Number(await shown.getAttribute("value")) === said.live_bytes + said.pooled_bytes + said.unlinked_bytes)
  }
  // And then nothing is drawn any more.
  await until("stillness", async () => {
    await page.evaluate(() => window.restart())
    await sleep(600)
    return (await page.evaluate(() => window.counts.draws)) === 0
  })
  assert.deepEqual(await faults(), [])
})

/** What a browser's console says about connections that a test breaks itself. */
const broken = (fault) => /Failed to load resource|net::ERR_/.test(fault)

test("a server that is killed and started again: the page says so and goes on", async (t) => {
  const { server, page, faults } = await opened(t)
  await server.make("before", {})
  await shows(page, 1)
  const state = page.locator("#state")
  await until("live", async () => (await state.textContent()) === "live")
  await page.getByRole("combobox", { name: "Topic", exact: true }).fill("before")
  await page.getByRole("button", { name: "Follow" }).click()
  await server.publish("before", ["first life"])
  await page.getByText("first life").waitFor()

  await server.kill()
  await until("it says so", async () => (await state.textContent()) === "cut off, trying again")
  assert.equal(await state.getAttribute("data-is"), "away")
  await until("the follower says so", async () => (await page.locator("#following").textContent()).startsWith("Cut off"))
  await page.evaluate(() => (window.still = "the same page"))
  await server.start()
  await server.make("after", {})
  await until("live again", async () => (await state.textContent()) === "live")
  await server.publish("before", ["second life"])
  await page.getByText("second life").waitFor()
  assert.match(await page.locator("#records [data-kind=gap]").first().textContent(), /the topic was recreated/)
  // The records come over another connection than the picture, which may be a moment behind them.
  const rows = async () => (await page.locator("#rows h3").allTextContents()).sort().join()
  await until("both topics are there", async () => (await rows()) === "after,before")
  assert.equal(await page.evaluate(() => window.still), "the same page")
  assert.deepEqual((await faults()).filter((fault) => !broken(fault)), [])
})

test("a server that stands still without a word is told of, and a drain is survived", async (t) => {
  const { server, page } = await opened(t)
  await server.make("t", {})
  await shows(page, 1)
  const state = page.locator("#state")
  server.process.kill("SIGSTOP")
  await until("it says so", async () => (await state.textContent()) === "no word from the server")
  server.process.kill("SIGCONT")
  await until("live", async () => (await state.textContent()) === "live")
  // One that says goodbye, and refuses for a moment before it is gone. Whoever follows goes on, too.
  await page.getByRole("combobox", { name: "Topic", exact: true }).fill("t")
  await page.getByRole("button", { name: "Follow" }).click()
  await server.publish("t", ["before"])
  await page.getByText("before").waitFor()
  const ended = new Promise((go) => server.process.once("exit", go))
  server.process.kill("SIGTERM")
  await ended
  await until("it says so", async () => (await state.textContent()) === "cut off, trying again")
  await until("the follower says so", async () => (await page.locator("#following").textContent()).startsWith("Cut off"))
  await server.start()
  await until("live", async () => (await state.textContent()) === "live")
  await server.publish("t", ["afterwards"])
  await page.getByText("afterwards").waitFor()
})

test("who pauses is left alone, and who comes back sees what is so then", async (t) => {
  const { server, page, faults } = await opened(t)
  await server.make("t", {})
  await shows(page, 1)
  await page.getByRole("button", { name: "Pause" }).click()
  await server.publish("t", ["x"])
  await server.make("u", {})
  await until("the stream's end", async () => /^psa_http_streams 0$/m.test(await (await fetch(`${server.url}/metrics`)).text()))
  assert.equal(await page.locator("#state").textContent(), "paused")
  assert.equal((await known(page, "t")).next, 0)
  await page.getByRole("button", { name: "Pause" }).click()
  await shows(page, 2)
  await until("the record", async () => (await known(page, "t")).next === 1)
  // Whoever does not look at the page has no stream either.
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true })
    document.dispatchEvent(new Event("visibilitychange"))
  })
  await until("the stream's end", async () => /^psa_http_streams 0$/m.test(await (await fetch(`${server.url}/metrics`)).text()))
  await page.evaluate(() => {
    delete document.hidden
    document.dispatchEvent(new Event("visibilitychange"))
  })
  await server.publish("t", ["y"])
  await until("the record", async () => (await known(page, "t")).next === 2)
  assert.deepEqual(await faults(), [])
})
