// The live page's box: publishing and following through it, also what somebody made up to do harm. Whatever
// comes from a topic is text.

import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { Server, browser, later, until, watched } from "./harness.mjs"
import { row, shows, words } from "./look.mjs"

let chromium
before(async () => (chromium = await browser()))
after(() => chromium?.close())

async function opened(t, settings = []) {
  const server = await new Server(settings).start()
  later(t, () => server.kill())
  const context = await chromium.newContext()
  later(t, () => context.close())
  // What a script from a record would do.
  await context.addInitScript(() => {
    window.alert = window.ran = () => (window.harmed = true)
  })
  return { server, ...(await watched(context, server.url)) }
}

const name = (page) => page.getByRole("combobox", { name: "Topic", exact: true })
const record = (page) => page.getByRole("textbox", { name: "Record" })
const publish = (page) => page.getByRole("button", { name: "Publish" })
const follow = (page) => page.getByRole("button", { name: "Follow" })
const records = (page) => page.locator("#records > li:not([data-kind]) > span:last-child").allTextContents()
const said = (page, line) => page.locator(`#${line}`).textContent()

const HOSTILE = [
  "<img src=x onerror=alert(1)>",
  "<script>alert(1)</script>",
  "\"'`><svg/onload=alert(1)>",
  "</li></ol><iframe srcdoc='<script>parent.ran()</script>'>",
  "javascript:alert(1)",
  "{{constructor.constructor('alert(1)')()}} ${alert(1)}",
  "__proto__",
  "constructor",
  "a/b?c=d#e%2ef&g",
  "שלום עולם",
  "\u202eevil\u202c\u2066x\u2069 \u200b \ufeff",
  "🦀 𝒯 e\u0301 \u{10ffff}",
  "  two  spaces ",
]
const LONG = "long".repeat(63)

test("a record that is published on the page is seen on the page", async (t) => {
  const { server, page, faults } = await opened(t)
  await publish(page).click()
  assert.equal(await said(page, "published"), "Name a topic first.")
  await follow(page).click()
  assert.equal(await said(page, "following"), "Name a topic first.")

  await name(page).fill("orders")
  await record(page).fill("first\n  second line\n")
  await publish(page).click()
  await until("its offset", async () => (await said(page, "published")) === "Published to \u2068orders\u2069 as record 0.")
  assert.equal(await record(page).inputValue(), "")
  await shows(page, 1)

  await follow(page).click()
  await until("the record", async () => (await records(page)).join("|") === "first\n  second line\n")
  await until("the end of what there is", async () => (await page.locator("#records [data-kind=caught-up]").textContent()) === "–caught up at 1")
  await record(page).fill("second")
  await record(page).press("Control+Enter")
  await until("the record", async () => (await records(page)).length === 2)
  assert.equal((await records(page))[1], "second")
  assert.equal(await said(page, "received"), "2 records received")

  // From elsewhere, too, and bytes that are no text.
  await server.publish("orders", [Buffer.from([0xff, 0, 1]), "a\r\nb", "nul \0 here", ""])
  await until("the records", async () => (await records(page)).length === 6)
  assert.deepEqual((await records(page)).slice(2), ["3 bytes: ff 00 01", "4 bytes: 61 0d 0a 62", "nul \0 here", ""])

  // A topic that ends says so, and the box is free again.
  await server.ask("DELETE", "/topics/orders")
  await until("the end", async () => (await said(page, "following")) === "The topic \u2068orders\u2069 is deleted.")
  await follow(page).waitFor()
  assert.deepEqual(await faults(), [])
})

test("names and records that were made up to do harm are text", async (t) => {
  const { server, page, faults } = await opened(t)
  for (const [i, text] of [...HOSTILE, LONG].entries()) {
    await name(page).fill(text)
    await record(page).fill(text)
    await publish(page).click()
    const named = await page.evaluate(async (text) => (await import("/live/model.js")).named(text), text)
    await until(`${text} to be published`, async () => (await said(page, "published")) === `Published to ${named} as record 0.`)
    assert.equal((await server.describe(text)).next_offset, 1)
    await shows(page, i + 1)
    await follow(page).click()
    await until(`the record ${text}`, async () => (await records(page)).length === 1)
    assert.deepEqual(await records(page), [text])
    await page.getByRole("button", { name: "Stop" }).click()
  }
  // Their rows have their names, with what cannot be seen written out.
  const shown = await page.locator("#rows h3").allTextContents()
  assert.ok(shown.includes(HOSTILE[0]) && shown.includes("שלום עולם") && shown.includes(LONG), JSON.stringify(shown))
  assert.ok(shown.includes("⟨U+202E⟩evil⟨U+202C⟩⟨U+2066⟩x⟨U+2069⟩ ⟨U+200B⟩ ⟨U+FEFF⟩"), JSON.stringify(shown))
  // Choosing one takes the name as it is.
  await row(page, "⟨U+202E⟩evil").getByRole("button").click()
  assert.equal(await name(page).inputValue(), HOSTILE[10])
  // A lease's name stands in a sentence.
  const holder = server.run("sub", HOSTILE[1], "--lease", HOSTILE[0], "--lease-ttl", "10m", "--server", server.binary)
  later(t, () => holder.kill("SIGKILL"))
  await row(page, HOSTILE[1]).getByRole("button").click()
  await until("the lease", async () => (await page.locator("[data-fact=leases]").textContent()).includes(`\u2068${HOSTILE[0]}\u2069 at `))

  assert.equal(await page.evaluate(() => window.harmed), undefined)
  const foreign = await page.evaluate(() => document.querySelectorAll("main :is(img, script, iframe, svg, a)").length)
  assert.equal(foreign, 0)
  // No row is wider than its list, however long a name is.
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  assert.equal(wide, 0)
  assert.deepEqual(await faults(), [])
})

test("a record that is long is shortened, and what comes too fast is counted", async (t) => {
  const { server, page, faults } = await opened(t)
  await name(page).fill("t")
  await server.publish("t", ["🦀".repeat(100_000)])
  await follow(page).click()
  await until("the record", async () => (await records(page)).length === 1)
  const [shown] = await records(page)
  assert.equal(shown, `${"🦀".repeat(1000)} … (200,000 characters)`)
  // More at once than anybody reads: the list stays short, and none is passed over in silence.
  await server.publish("t", Array.from({ length: 5000 }, (_, i) => `record ${i}`))
  await until("the last one", async () => (await records(page)).at(-1) === "record 4999")
  assert.ok((await page.locator("#records > li").count()) <= 200)
  assert.equal(await said(page, "received"), "5,001 records received")
  assert.deepEqual(await faults(), [])
})

test("what the server refuses is told in its words", async (t) => {
  const { page, faults } = await opened(t)
  const wrong = async (topic, why) => {
    await name(page).fill(topic)
    await refused(why)
  }
  const refused = async (why) => {
    await record(page).fill("kept")
    await publish(page).click()
    await until(why, async () => (await said(page, "published")).includes(why))
    assert.equal(await record(page).inputValue(), "kept", "what was not published is not lost")
    await follow(page).click()
    await until(why, async () => (await said(page, "following")).includes(why))
    await follow(page).waitFor()
  }
  await name(page).evaluate((input) => input.removeAttribute("maxlength"))
  await wrong("nul\0inside", "control character")
  await wrong("ü".repeat(128), "longer than 255 bytes")
  await wrong("..", "A browser cannot ask for a topic of this name.")
  // Half a character: no tool types it, but a script may.
  await name(page).evaluate((input) => (input.value = "half \ud800"))
  await refused("A browser cannot ask for a topic of this name.")
  assert.deepEqual((await faults()).filter((fault) => !/status of 400/.test(fault)), [])
})

test("a gap is told in the list and to a screen reader", async (t) => {
  const { server, page, faults } = await opened(t, ["--send-buffer", "4KiB"])
  await server.make("t", { segment_bytes: 4096, memory_limit: 64 << 10, overflow: "evict", retention: "nothing" })
  await name(page).fill("t")
  await page.locator("#from").selectOption("next")
  await follow(page).click()
  await until("the stream", async () => (await said(page, "following")) === "Following \u2068t\u2069.")
  // The page's only thread stands still until it is let go, so that it falls behind however fast this machine is.
  await server.make("go")
  const still = page.evaluate(() => {
    const request = new XMLHttpRequest()
    request.open("GET", "/topics/go/records?from=earliest&wait=30s", false)
    request.send()
    return request.status
  })
  for (let n = 0; n < 3000 && !(await server.describe("t")).evictions; n++) {
    await server.publish("t", Array(20).fill("x".repeat(1000)))
  }
  await server.publish("go", [""])
  assert.equal(await still, 200)
  await until("the gap", async () => (await page.locator("#following").textContent()).startsWith("Gap in \u2068t\u2069: evicted: records "))
  await until("the topic's own word", async () => (await words(page, "t")).includes("lost by eviction"))
  assert.deepEqual(await faults(), [])
})
