// Clients that others wrote follow a topic through everything that cuts a connection: each has every record once, or
// is told what it missed, and is handed nothing that nobody said.

import assert from "node:assert/strict"
import { test } from "node:test"
import { Proxy, Server, later, lots, seed, until } from "../browser/server.mjs"
import { clients } from "./clients.mjs"

// What a request's head and an answer's take is never cut: some clients take that for a refusal, which is final.
const HEADS = 1_500
const OFF = () => 0
const ON = () => Infinity

/** What a client was handed. */
class Seen {
  all = []

  tell = (name, data, id) => this.all.push({ name, data, id })

  named(name) {
    return this.all.filter((event) => event.name === name)
  }

  records() {
    return this.named("message").map(({ data }) => data)
  }

  begun() {
    return this.named("begin").length + this.named("gap").length
  }
}

async function follow(t, client, settings, topic, from) {
  const server = await new Server(settings).start()
  later(t, () => server.kill())
  const proxy = await Proxy.start(server)
  later(t, () => proxy.stop())
  await server.make(topic)
  await server.publish(topic, ["old 1", "old 2"])
  const seen = new Seen()
  const close = await client.open(`${proxy.url}/topics/${topic}/events?from=${from}`, seen.tell)
  later(t, close)
  await until("the stream's begin", () => seen.named("caught-up").length)
  return { server, proxy, seen }
}

for (const [name, client] of Object.entries(clients)) {
  test(name, { concurrency: true }, async (t) => {
    const cutFirst = t.test("cut before its first record", async (t) => {
      const { server, proxy, seen } = await follow(t, client, [], "first", "next")
      assert.equal(seen.records().length, 0)
      proxy.cut(OFF)
      await server.publish("first", ["new 1", "new 2", "new 3"])
      proxy.cut(ON)
      await until("the records", () => seen.records().length >= 3)
      await server.publish("first", ["new 4"])
      await until("one more", () => seen.records().length >= 4)
      assert.deepEqual(seen.records(), ["new 1", "new 2", "new 3", "new 4"])
      assert.equal(seen.named("gap").length, 0)
    })

    const cutLater = t.test("cut in the middle, again and again", async (t) => {
      const draw = lots(seed)
      const { server, proxy, seen } = await follow(t, client, [], "middle", "next")
      const sent = []
      // No server can help one that takes an id for its own one byte too early.
      proxy.spares = client.hasty ? "\n\n" : undefined
      let cuts = 4
      proxy.cut(() => (cuts-- > 0 ? HEADS + draw.between(0, 4_000) : Infinity))
      while (cuts >= 0 || proxy.cuts < 4) {
        const batch = Array.from({ length: draw.between(1, 20) }, (_, i) => `record ${sent.length + i}:${"x".repeat(draw.between(0, 100))}`)
        await server.publish("middle", batch)
        sent.push(...batch)
        await new Promise((go) => setTimeout(go, draw.between(1, 100)))
      }
      await until("the last record", () => seen.records().at(-1) === sent.at(-1))
      // Said briefly: there are hundreds of them.
      const wrong = seen.records().findIndex((record, i) => record !== sent[i])
      assert.equal(wrong, -1, `instead of ${JSON.stringify(sent[wrong])}: ${JSON.stringify(seen.all.filter(({ name }) => name === "message").slice(Math.max(0, wrong - 1), wrong + 2))}`)
      assert.equal(seen.records().length, sent.length)
      assert.equal(seen.named("gap").length, 0)
    })

    const restarted = t.test("the server is started again", async (t) => {
      const { server, seen } = await follow(t, client, [], "again", "earliest")
      assert.deepEqual(seen.records(), ["old 1", "old 2"])
      await server.kill()
      await server.start()
      await server.publish("again", ["new 1"])
      await until("the new record", () => seen.records().includes("new 1"))
      assert.deepEqual(seen.records(), ["old 1", "old 2", "new 1"])
      const [gap, ...more] = seen.named("gap").map(({ data }) => JSON.parse(data))
      assert.deepEqual([gap.reason, gap.first_missed, more], ["other-epoch", 2, []])
    })

    const idle = t.test("heartbeats and empty records", async (t) => {
      const { server, seen } = await follow(t, client, ["--http-heartbeat", "50ms"], "idle", "next")
      await new Promise((go) => setTimeout(go, 500))
      await server.publish("idle", [""])
      await until("the empty record", () => seen.records().length)
      await new Promise((go) => setTimeout(go, 500))
      await server.publish("idle", ["last"])
      await until("the last record", () => seen.records().includes("last"))
      const told = seen.all.map(({ name, data }) => (name === "message" ? data : name))
      assert.deepEqual(told, ["begin", "caught-up", "", "last"])
      // Each event has its place, and only records move it.
      const ids = seen.all.map(({ id }) => id.slice(id.indexOf(":") + 1))
      assert.deepEqual(ids, ["1", "1", "2", "3"])
    })

    await Promise.all([cutFirst, cutLater, restarted, idle])
  })
}
