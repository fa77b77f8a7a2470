// Photographs the live page, light and dark: `node tests/browser/photograph.mjs FOLDER`. Small topics that
// something happens to, so that each thing in the legend is to be seen.

import { mkdirSync } from "node:fs"
import { Server, Subscriber, browser, lots, sleep, until } from "./harness.mjs"
import { SETTINGS } from "./load.mjs"

const folder = process.argv[2] ?? "docs/figures"
const words = ["created", "paid", "packed", "sent", "delivered", "returned"]
const draw = lots(7)

const server = await new Server(SETTINGS).start()
const open = []
const processes = []
let going = true
const publishing = []

/** A topic that is published to, and those who read it. */
async function topic(name, settings, { every, most, cursors = 0, stalled = 0 }) {
  await server.make(name, { segment_bytes: 8192, memory_limit: 512 << 10, overflow: "evict", retention: "nothing", ...settings })
  for (let i = 0; i < cursors + stalled; i++) {
    const subscriber = await Subscriber.open(server, name)
    if (i >= cursors) subscriber.stall()
    open.push(subscriber)
  }
  publishing.push((async () => {
    for (let n = 0; going; n++) {
      const records = Array.from({ length: draw.between(1, most) }, (_, i) => JSON.stringify({ n: n * 100 + i, order: draw.between(1, 9999), state: words[draw.between(0, 5)], note: "·".repeat(draw.between(0, 40)) }))
      await server.publish(name, records)
      await sleep(every)
    }
  })())
}

/** A lease; `detach` kills its holder. */
function lease(name, on) {
  const holder = server.run("sub", on, "--lease", name, "--lease-ttl", "10m", "--server", server.binary)
  processes.push(holder)
  return { detach: () => holder.kill("SIGKILL") }
}

/** A lease whose holder is gone at once: it stays where it began. */
async function left(name, on) {
  const holder = lease(name, on)
  await until("the lease", async () => (await server.describe(on)).leases.some((lease) => lease.name === name))
  holder.detach()
}

try {
  await topic("orders", { retention: { records: 600 } }, { every: 60, most: 12, cursors: 7 })
  await topic("payments", {}, { every: 80, most: 6, cursors: 3 })
  await topic("clicks", {}, { every: 25, most: 24, cursors: 24, stalled: 2 })
  await topic("exports", { memory_limit: 256 << 10 }, { every: 110, most: 14, cursors: 2 })
  await topic("sensor/hall-2/temperature", { retention: { bytes: 60000 } }, { every: 120, most: 10, cursors: 2 })
  await topic("audit", { retention: { records: 1500 } }, { every: 150, most: 8 })
  await topic("mail.outbox", {}, { every: 100, most: 5, cursors: 1 })

  lease("dashboard", "orders")
  await left("billing", "payments")
  const chromium = await browser()
  mkdirSync(folder, { recursive: true })
  // Both look at the same minutes.
  const pages = []
  for (const scheme of ["light", "dark"]) {
    const context = await chromium.newContext({ viewport: { width: 1240, height: 940 }, colorScheme: scheme })
    const page = await context.newPage()
    await page.goto(server.url)
    await until("the topics", () => page.locator("#rows > li").count())
    pages.push([scheme, page])
  }
  // Long enough for some to be evicted, and for others to come and stall.
  for (let round = 0; round < 12; round++) {
    await sleep(9000)
    if (round === 7) await left("invoices", "payments")
    await left(`archive ${round + 1}`, "exports")
    await sleep(5000)
    await left(`search ${round + 1}`, "exports")
    const late = await Subscriber.open(server, "clicks")
    late.stall()
    open.push(late)
  }
  for (const [scheme, page] of pages) {
    await page.getByRole("button", { name: "orders" }).click()
    await page.getByRole("textbox", { name: "Record" }).fill('{"order": 4711, "state": "paid"}')
    await page.getByRole("button", { name: "Publish", exact: true }).click()
    await page.locator("#from").selectOption("last:20")
    await page.getByRole("button", { name: "Follow" }).click()
    await sleep(2500)
    await page.evaluate(() => scrollTo(0, 0))
    await page.screenshot({ path: `${folder}/live-${scheme}.png` })
  }
  if (process.argv.includes("--narrow")) {
    const context = await chromium.newContext({ viewport: { width: 390, height: 1400 }, colorScheme: "light" })
    const page = await context.newPage()
    await page.goto(server.url)
    await sleep(3000)
    await page.screenshot({ path: `${folder}/live-narrow.png` })
  }
  await chromium.close()
} finally {
  going = false
  await Promise.allSettled(publishing)
  open.forEach((subscriber) => subscriber.close())
  processes.forEach((holder) => holder.kill("SIGKILL"))
  await server.kill()
}
