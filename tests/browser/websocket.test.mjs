// A page's own WebSocket: it goes on where it was as a few lines of script say, through whatever is done to
// its connection and to the server; and it is let in with its token, and from its own origin alone.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { TOPIC, allOnce, killed, onceOrInGaps } from "./following.mjs"
import { Proxy, Server, browser, seed, until } from "./harness.mjs"

console.log(`PSA_TEST_SEED=${seed}`)
let chromium
before(async () => (chromium = await browser()))
after(() => chromium?.close())

/** Follows the topic with this subprotocol, in a page of the server's own that asks for nothing else. */
const following = (protocol) => async (proxy) => {
  const page = await chromium.newPage()
  await page.goto(`${proxy.url}/healthz`)
  await page.evaluate(
    ([topic, protocol]) => {
      window.seen = { records: [], gaps: [], opened: 0 }
      let position = null
      let epoch = null
      const record = (offset, text) => {
        position = `${epoch}:${offset}`
        window.seen.records.push([position, text])
      }
      const text = (data) => {
        for (const item of JSON.parse(data)) {
          epoch = item.epoch
          if (!item.event) {
            record(item.offset, item.data)
            continue
          }
          if (item.event === "gap") window.seen.gaps.push(item)
          position = item.position
        }
      }
      const binary = (data) => {
        const view = new DataView(data)
        for (let at = 0; at < view.byteLength; ) {
          const length = view.getUint32(at + 8, true)
          record(Number(view.getBigUint64(at, true)), new TextDecoder().decode(new Uint8Array(data, at + 12, length)))
          at += 12 + length
        }
      }
      const follow = () => {
        const place = position ? `after=${position}` : "from=0"
        const socket = new WebSocket(`ws://${location.host}/topics/${topic}/events?${place}`, protocol)
        socket.binaryType = "arraybuffer"
        socket.onopen = () => (window.seen.opened += 1)
        socket.onmessage = ({ data }) => (typeof data === "string" ? text(data) : binary(data))
        socket.onclose = () => setTimeout(follow, 50)
      }
      follow()
    },
    [TOPIC, protocol],
  )
  return page
}

describe("a WebSocket", { concurrency: 3 }, () => {
  for (const [protocol, stream] of [["psa.json", 11], ["psa.binary", 12]]) {
    test(`cut at random, with everything kept, in ${protocol}: every record once, and no gap`, () => allOnce(following(protocol), stream))
  }

  test("cut at random, with little kept: every record once, or in a gap that is named", () => onceOrInGaps(following("psa.json"), 13))

  test("the server is killed and started again: the old epoch's loss is named, and the new one's records come", () =>
    killed(following("psa.json"), 14))

  test("it is let in with its token, and from its own origin alone", async () => {
    const token = "s3c/ret"
    const server = await new Server(["--token", token]).start()
    const other = await new Server().start()
    const elsewhere = await Proxy.start(server)
    try {
      await server.ask("POST", "/topics/t", "hello", { Authorization: `Bearer ${token}` })
      /** What a page of this origin gets: the messages, or the code that it is closed with. */
      const get = async (origin, protocols) => {
        const page = await chromium.newPage()
        await page.goto(`${origin}/healthz`)
        const got = await page.evaluate(
          ([host, protocols]) =>
            new Promise((go) => {
              const socket = new WebSocket(`ws://${host}/topics/t/events`, protocols)
              const items = []
              socket.onmessage = ({ data }) => {
                items.push(...JSON.parse(data))
                if (items.some(({ event }) => event === "caught-up")) go({ protocol: socket.protocol, items })
              }
              socket.onclose = ({ code }) => go({ code })
            }),
          [server.http, protocols],
        )
        await page.close()
        return got
      }
      const bearer = (secret) => `psa.bearer.${Buffer.from(secret).toString("base64url")}`
      const own = await get(server.url, ["psa.json", bearer(token)])
      assert.equal(own.protocol, "psa.json")
      assert.deepEqual(own.items.map(({ event, data }) => event ?? data), ["begin", "hello", "caught-up"])
      assert.deepEqual(await get(server.url, ["psa.json", bearer("wrong")]), { code: 1006 })
      assert.deepEqual(await get(server.url, ["psa.json"]), { code: 1006 })
      // With the token, but from a page of another origin: the browser says which, and cannot be told not to.
      for (const foreign of [other.url, elsewhere.url]) {
        assert.deepEqual(await get(foreign, ["psa.json", bearer(token)]), { code: 1006 })
      }
      await until("the socket is gone", async () => {
        const metrics = await fetch(`${server.url}/metrics`, { headers: { Authorization: `Bearer ${token}` } })
        return (await metrics.text()).includes("psa_http_streams 0\n")
      })
    } finally {
      elsewhere.stop()
      await Promise.all([server.kill(), other.kill()])
    }
  })
})
