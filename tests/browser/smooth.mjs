// How smoothly the live page runs with 200 topics and 1,000 cursors under load, as figures for docs/http.md:
// `node tests/browser/smooth.mjs [SECONDS]`. Nothing is asserted here: times are other ones on every machine.

import { cpus } from "node:os"
import { Server, browser, watched } from "./harness.mjs"
import { Load, SETTINGS } from "./load.mjs"
import { counting, feed, figures, measure, quantile, shows } from "./look.mjs"

const [TOPICS, CURSORS] = [200, 1000]
const seconds = Number(process.argv[2] ?? 20)

const chromium = await browser()
const server = await new Server(SETTINGS).start()
let load
try {
  load = await Load.start(server, { topics: TOPICS, cursors: CURSORS, seed: 1, pause: 10 })
  console.log(`${new Date().toISOString().slice(0, 10)}; ${cpus().length} × ${cpus()[0].model.trim()}; Chromium ${chromium.version()}, headless, without a graphics processor; server, load and browser on the same processors`)
  for (const [what, viewport, scrolls] of [
    ["a laptop's window, looking", { width: 1240, height: 860 }, false],
    ["the same, scrolling through the list", { width: 1240, height: 860 }, true],
    ["a large screen, looking", { width: 2560, height: 1440 }, false],
  ]) {
    const context = await chromium.newContext({ viewport })
    await context.addInitScript(counting)
    const { page, faults } = await watched(context, server.url)
    await shows(page, TOPICS)
    await page.waitForTimeout(2000)
    if (scrolls) {
      await page.evaluate(() => {
        let by = 12
        const go = () => {
          const end = document.documentElement.scrollHeight - innerHeight
          if (scrollY >= end - 1) by = -12
          if (scrollY <= 0) by = 12
          scrollBy(0, by)
          requestAnimationFrame(go)
        }
        requestAnimationFrame(go)
      })
    }
    const began = load.records
    const found = await measure(page, seconds)
    console.log(`\n${what}: ${TOPICS} topics, ${CURSORS} cursors, ${Math.round((load.records - began) / found.seconds)} records a second in`)
    for (const [name, text] of figures(found)) console.log(`  ${name}: ${text}`)
    for (const fault of await faults()) console.log(`  FAULT: ${fault}`)
    await context.close()
  }
  const [all, ...some] = (await feed(server, 41)).map(({ bytes, data }) => ({ bytes, topics: data.topics.length }))
  const middle = (name) => quantile(some.map((tick) => tick[name]), 0.5)
  console.log(`\nthe feed: ${all.bytes} bytes for all; then median ${middle("bytes")} bytes a tick for ${middle("topics")} topics that changed, at the most ${Math.max(...some.map(({ bytes }) => bytes))}`)
} finally {
  await load?.stop()
  await chromium.close()
  await server.kill()
}
