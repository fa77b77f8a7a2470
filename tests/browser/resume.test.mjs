// A browser's own EventSource: whatever is done to its connection and to the server, it ends with every
// record once, or with the gap named.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { TOPIC, allOnce, killed, onceOrInGaps } from "./following.mjs"
import { browser, seed } from "./harness.mjs"

console.log(`PSA_TEST_SEED=${seed}`)
let chromium
before(async () => (chromium = await browser()))
after(() => chromium?.close())

/** Follows the topic through the proxy, in a page of the server's own that asks for nothing else. */
async function follow(proxy) {
  const page = await chromium.newPage()
  await page.goto(`${proxy.url}/healthz`)
  await page.evaluate((topic) => {
    window.seen = { records: [], gaps: [], opened: 0 }
    let last = null
    // As docs/http.md says: a browser comes back by itself, but for what closes its EventSource for good.
    const follow = () => {
      const place = last ? `after=${last}&on_gap=continue` : "from=earliest"
      const source = new EventSource(`/topics/${topic}/events?${place}`)
      source.onopen = () => (window.seen.opened += 1)
      for (const kind of ["begin", "message", "base64", "gap", "caught-up"])
        source.addEventListener(kind, (event) => (last = event.lastEventId))
      source.onmessage = (event) => window.seen.records.push([event.lastEventId, event.data])
      source.addEventListener("gap", (event) => window.seen.gaps.push(JSON.parse(event.data)))
      source.addEventListener("end", (event) => JSON.parse(event.data).reason === "closed" && source.close())
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) setTimeout(follow, 1000)
      }
    }
    follow()
  }, TOPIC)
  return page
}

describe("an EventSource", { concurrency: 3 }, () => {
  test("cut at random, with everything kept: every record once, and no gap", () => allOnce(follow, 1))

  test("cut at random, with little kept: every record once, or in a gap that is named", async () => {
    const gaps = await onceOrInGaps(follow, 2)
    assert.ok(gaps.length > 0)
  })

  test("the server is killed and started again: the old epoch's loss is named, and the new one's records come", () => killed(follow, 3))
})
