// Who can use the live page: with a keyboard alone, with a screen reader, in light and dark, with less motion,
// with a token.

import assert from "node:assert/strict"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { after, before, test } from "node:test"
import axe from "axe-core"
import { Server, Subscriber, browser, later, seed, sleep, until, watched } from "./harness.mjs"
import { Load, SETTINGS } from "./load.mjs"
import { counting, drawn, known, row, shows } from "./look.mjs"

let chromium
before(async () => (chromium = await browser()))
after(() => chromium?.close())

async function opened(t, { settings = SETTINGS, context = {}, topics = [] } = {}) {
  const server = await new Server(settings).start()
  later(t, () => server.kill())
  for (const topic of topics) await server.make(topic, { segment_bytes: 4096, memory_limit: 1 << 20, overflow: "evict", retention: { records: 10 } })
  const around = await chromium.newContext({ viewport: { width: 1240, height: 860 }, ...context })
  later(t, () => around.close())
  await around.addInitScript(counting)
  const seen = await watched(around, server.url)
  return { server, around, ...seen }
}

/** What has the focus: its role, its name, and whether that can be seen. */
const focused = (page) =>
  page.evaluate(() => {
    const at = document.activeElement
    if (at === document.body) return null
    const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(at)
    const { width, height, top, bottom, left } = at.getBoundingClientRect()
    return {
      what: at.id || `${at.tagName.toLowerCase()} ${at.textContent}`,
      visible: outlineStyle === "solid" && parseFloat(outlineWidth) >= 2 && !outlineColor.endsWith(", 0)") && width > 0 && height > 0,
      onScreen: bottom > 0 && top < innerHeight && left >= 0,
    }
  })

test("Tab goes through all there is, and where it stands is seen", async (t) => {
  const topics = ["a", "b", "c"]
  const { page, faults } = await opened(t, { topics })
  await shows(page, topics.length)
  await page.locator("#sort").selectOption("name")
  await page.evaluate(() => document.activeElement.blur())
  const walk = async (key) => {
    const stops = []
    for (;;) {
      await page.keyboard.press(key)
      const at = await focused(page)
      if (!at || (stops.length && at.what === stops[0].what)) return stops
      stops.push(at)
      assert.ok(stops.length < 40, "the focus goes in circles")
    }
  }
  const stops = await walk("Tab")
  for (const stop of stops) assert.ok(stop.visible && stop.onScreen, `the focus cannot be seen: ${JSON.stringify(stop)}`)
  const order = ["a Go to publish and follow", "filter", "sort", "pause", "summary What moves here", "button a", "name", "record", "button Publish", "from", "follow-button", "stream"]
  assert.deepEqual(stops.map(({ what }) => what), order)
  // Nothing that can be operated is left out: the other topics are reached from the first one by arrows.
  const all = await page.evaluate(() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter((at) => at.checkVisibility()).map((at) => at.id || `${at.tagName.toLowerCase()} ${at.textContent}`))
  const byArrows = ["button b", "button c"]
  assert.deepEqual(all.filter((what) => !order.includes(what) && !byArrows.includes(what)), ["topic"], "only the place that the first link goes to")
  assert.deepEqual((await walk("Shift+Tab")).map(({ what }) => what), order.toReversed().filter((what) => what !== "x"))
  assert.deepEqual(await faults(), [])
})

test("everything can be done with the keyboard alone", async (t) => {
  const { server, page, faults } = await opened(t, { topics: ["a", "b", "c", "d"] })
  await shows(page, 4)
  const { keyboard } = page
  const on = async (what) => assert.equal((await focused(page))?.what, what)
  const tabTo = async (what) => {
    for (let n = 0; n < 40; n++) {
      await keyboard.press("Tab")
      if ((await focused(page))?.what === what) return
    }
    assert.fail(`Tab does not reach ${what}`)
  }
  // Sorting, by the letter that its choice begins with.
  await tabTo("sort")
  await keyboard.press("n")
  assert.equal(await page.locator("#sort").inputValue(), "name")
  await tabTo("pause")
  await keyboard.press("Space")
  await until("paused", async () => (await page.locator("#state").textContent()) === "paused")
  await keyboard.press("Enter")
  await until("live", async () => (await page.locator("#state").textContent()) === "live")
  await keyboard.press("Tab")
  const open = await page.locator("#legend").evaluate(({ open }) => open)
  await keyboard.press("Enter")
  assert.equal(await page.locator("#legend").evaluate(({ open }) => open), !open)
  // The list: arrows, ends, and the feed goes on meanwhile without taking the focus away.
  await keyboard.press("Tab")
  await on("button a")
  await keyboard.press("ArrowDown")
  await on("button b")
  await keyboard.press("End")
  await on("button d")
  await keyboard.press("ArrowDown")
  await on("button d")
  await keyboard.press("Home")
  await on("button a")
  await keyboard.press("ArrowDown")
  await server.publish("d", Array(20).fill("x".repeat(1000)))
  await until("the news", async () => (await known(page, "d")).next === 20)
  await sleep(2500)
  await on("button b")
  // What it stands on goes: it stands on its neighbour.
  await server.ask("DELETE", "/topics/b")
  await shows(page, 3)
  await on("button c")
  await keyboard.press("Enter")
  await on("record")
  assert.equal(await page.locator("#name").inputValue(), "c")
  assert.equal(await row(page, "c").getByRole("button").getAttribute("aria-current"), "true")
  await keyboard.type("by hand")
  await keyboard.press("Control+Enter")
  await until("its offset", async () => (await page.locator("#published").textContent()).endsWith("as record 0."))
  await tabTo("follow-button")
  await keyboard.press("Enter")
  await page.getByText("by hand").waitFor()
  await keyboard.press("Tab")
  await on("stream")
  await keyboard.press("Shift+Tab")
  await keyboard.press("Enter")
  await until("its end", async () => (await page.locator("#following").textContent()) === "Followed \u2068c\u2069.")
  // The filter, and back to the list of what is left.
  await page.locator("#filter").focus()
  await keyboard.type("D")
  await until("one row", async () => (await page.locator("#rows > li:visible").count()) === 1)
  await tabTo("button d")
  // The first link goes where it says.
  await page.evaluate(() => document.activeElement.blur())
  await page.locator(".skip").focus()
  await keyboard.press("Enter")
  await keyboard.press("Tab")
  await on("name")
  assert.deepEqual(await faults(), [])
})

test("a screen reader is told what everything is, and is not talked over", async (t) => {
  const { server, page, faults } = await opened(t, { topics: ["a", "b"] })
  const subscriber = await Subscriber.open(server, "a")
  later(t, () => subscriber.close())
  await shows(page, 2)
  await until("the cursor", async () => (await known(page, "a")).cursors === 1)
  const tree = await page.locator("body").ariaSnapshot()
  for (const line of [
    'heading "psa segments, and who reads them" [level=1]',
    "status: live",
    'heading "Topics" [level=2]',
    'searchbox "Filter"',
    'combobox "Sort by"',
    'button "Pause"',
    'list "Topics. Arrow keys go from one to the next, Enter chooses it."',
    'heading "a" [level=3]',
    'button "a"',
    'img "0 sealed segments, the open one 0 % full; 0 pooled, 0 unlinked; 1 cursor; nobody is behind the open segment."',
    'img "0 sealed segments, the open one 0 % full; 0 pooled, 0 unlinked; nobody reads it; nobody is behind the open segment."',
    'complementary "Publish and follow"',
    'combobox "Topic"',
    'textbox "Record"',
    'button "Publish"',
    'combobox "From"',
    'button "Follow"',
    'log "Records of the topic that is followed"',
    'meter "memory of all topics"',
  ]) {
    assert.ok(tree.includes(line), `no ${line} in\n${tree}`)
  }
  // While records come and figures change many times a second, nothing of it is read out by itself.
  await page.locator("#name").fill("a")
  await page.getByRole("button", { name: "Follow" }).click()
  await until("the stream", async () => (await page.locator("#following").textContent()).startsWith("Following"))
  await page.evaluate(() => window.restart())
  for (let n = 0; n < 30; n++) {
    await server.publish("a", ["x".repeat(500)])
    await sleep(50)
  }
  await until("the records", async () => (await page.locator("#received").textContent()) === "30 records received")
  const { announced, mutations } = await page.evaluate(() => ({ ...window.counts, drawn: 0 }))
  assert.ok(mutations > 50, `${mutations}`)
  assert.equal(announced, 0)
  assert.deepEqual(await faults(), [])
})

for (const scheme of ["light", "dark"]) {
  test(`nothing is found by axe, ${scheme}`, async (t) => {
    // Only to let axe in; that the policy holds the other tests see.
    const { server, page } = await opened(t, { topics: ["<b>hostile</b>", "other"], context: { colorScheme: scheme, bypassCSP: true } })
    await shows(page, 2)
    await page.evaluate(axe.source)
    const look = async (state) => {
      const { violations, passes } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }))
      const found = violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${state}: ${id}: ${target}: ${failureSummary}`))
      assert.deepEqual(found, [])
      assert.ok(passes.length > 25, `only ${passes.length} rules looked at`)
    }
    await look("at first")
    // Everything that has a colour of its own: held back, a gap, good and bad news, a chosen row.
    const holder = server.run("sub", "other", "--lease", "billing", "--lease-ttl", "10m", "--server", server.binary)
    later(t, () => holder.kill("SIGKILL"))
    await until("the lease", async () => (await server.describe("other")).leases.length)
    holder.kill("SIGKILL")
    await row(page, "other").getByRole("button").click()
    await page.locator("#record").fill("x")
    await page.getByRole("button", { name: "Publish" }).click()
    await until("its offset", async () => (await page.locator("#published").textContent()).startsWith("Published"))
    for (let n = 0; n < 10; n++) await server.publish("other", Array(3).fill("x".repeat(1000)))
    await until("what is held back", async () => (await page.locator(".what[data-slow]").count()) > 0)
    await page.locator("#from").selectOption("earliest")
    await page.getByRole("button", { name: "Follow" }).click()
    await page.locator("#records li").first().waitFor()
    await page.evaluate(() => {
      const line = document.createElement("li")
      line.dataset.kind = "gap"
      line.append(document.createElement("span"), "missed")
      document.getElementById("records").append(line)
    })
    await look("following")
    await page.getByRole("button", { name: "Pause" }).click()
    await page.locator("#name").fill("..")
    await page.getByRole("button", { name: "Publish" }).click()
    await page.locator("#filter").fill("nothing has this")
    await look("paused, refused, filtered")
    await server.kill()
    await page.getByRole("button", { name: "Pause" }).click()
    await until("cut off", async () => (await page.locator("#state").getAttribute("data-is")) === "away")
    await look("cut off")
    await page.setViewportSize({ width: 360, height: 700 })
    await look("narrow")
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, "nothing hangs out of a narrow screen")
  })
}

/** How far apart two colours are, as WCAG counts it. */
function contrast(one, other) {
  const light = (hex) => {
    const [r, g, b] = hex.match(/\w\w/g).map((part) => parseInt(part, 16) / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const [less, more] = [light(one), light(other)].sort((a, b) => a - b)
  return (more + 0.05) / (less + 0.05)
}

test("light and dark are followed while the page is open, and every drawing stands out in both", async (t) => {
  const { server, page, faults } = await opened(t, { topics: ["a"] })
  const subscriber = await Subscriber.open(server, "a")
  later(t, () => subscriber.close())
  for (let n = 0; n < 10; n++) await server.publish("a", Array(3).fill("x".repeat(1000)))
  await shows(page, 1)
  const seen = {}
  for (const colorScheme of ["light", "dark", "light"]) {
    await page.emulateMedia({ colorScheme })
    // `drawn` knows a block by the colours that the style sheet has now.
    await until(`a drawing in ${colorScheme}`, async () => {
      const blocks = await drawn(page, "a")
      return blocks?.length > 2 && blocks.slice(0, -1).every(({ is }) => is === "kept") && blocks.at(-1).is === "open" && blocks.at(-1).above.join() === "cursor"
    })
    const style = await page.evaluate(() => {
      const style = getComputedStyle(document.documentElement)
      const names = ["card", "open", "shared", "held", "kept", "unlinked", "pooled", "cursor", "lease", "held-ink", "focus"]
      return Object.fromEntries([...names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]), ["paper", getComputedStyle(document.documentElement).backgroundColor]])
    })
    seen[colorScheme] = style.paper
    for (const [name, colour] of Object.entries(style)) {
      if (["card", "paper"].includes(name)) continue
      const far = contrast(colour, style.card)
      assert.ok(far >= 3, `${name} on a card, ${colorScheme}: ${far.toFixed(2)}`)
    }
  }
  assert.notEqual(seen.light, seen.dark)
  assert.deepEqual(await faults(), [])
})

for (const [reducedMotion, moves] of [["reduce", false], ["no-preference", true]]) {
  test(`with motion: ${reducedMotion}, segments ${moves ? "fade in and out" : "are there or not"}`, async (t) => {
    const { server, page, faults } = await opened(t, { context: { reducedMotion } })
    const load = await Load.start(server, { topics: 4, cursors: 8, seed })
    later(t, () => load.stop())
    await shows(page, 4)
    await page.evaluate(() => window.restart())
    const heads = () => page.evaluate(() => [...document.querySelectorAll("#rows > li")].reduce((sum, { row }) => sum + row.topic.now.head, 0))
    const began = await heads()
    await until("some segments to go", async () => (await heads()) > began + 10)
    const { faded, draws } = await page.evaluate(() => ({ ...window.counts, drawn: 0 }))
    assert.ok(draws > 10)
    assert.equal(faded > 0, moves, `${faded} half there`)
    assert.deepEqual(await faults(), [])
  })
}

test("where a token is wanted the page says which, and goes on with the right one", async (t) => {
  const folder = mkdtempSync(`${tmpdir()}/psa-browser-`)
  later(t, () => rmSync(folder, { recursive: true }))
  const hash = async (token) => Buffer.from(await crypto.subtle.digest("SHA-256", Buffer.from(token))).toString("hex")
  const entry = async (token, more) => `[[token]]\nname = "${token}"\nsha256 = "${await hash(token)}"\npublish = ["*"]\nsubscribe = ["*"]\n${more}\n`
  writeFileSync(`${folder}/access.toml`, (await entry("lesser", "")) + (await entry("operator", "metrics = true")))
  const { server, page, faults } = await opened(t, { settings: ["--access-file", `${folder}/access.toml`] })
  const state = page.locator("#state")
  const why = page.locator("#access-why")
  const use = async (token) => {
    await page.locator("#token").fill(token)
    await page.keyboard.press("Enter")
  }
  await until("the question", async () => (await state.textContent()) === "no access")
  assert.equal(await why.textContent(), "This server wants a token.")
  assert.equal((await focused(page)).what, "token")
  assert.equal(await page.getByLabel("This server wants a token.").getAttribute("type"), "password")
  await use("unknown")
  await until("a word", async () => (await why.textContent()) === "The server does not know this token.")
  await use("lesser")
  await until("a word", async () => (await why.textContent()) === "This token lacks the right `metrics`, which this page needs.")
  assert.equal(await state.getAttribute("data-is"), "away")
  // It may do other things on the page all the same.
  await page.locator("#name").fill("t")
  await page.locator("#record").fill("x")
  await page.getByRole("button", { name: "Publish" }).click()
  await until("its offset", async () => (await page.locator("#published").textContent()).startsWith("Published"))
  await page.locator("#token").focus()
  await use("operator")
  await until("live", async () => (await state.textContent()) === "live")
  assert.equal(await page.locator("#access").isVisible(), false)
  await shows(page, 1)
  // The token is nowhere but in the page.
  assert.deepEqual(await page.evaluate(() => [location.href.includes("operator"), localStorage.length, sessionStorage.length, document.cookie]), [false, 0, 0, ""])
  await page.getByRole("button", { name: "Follow" }).click()
  await page.locator("#records > li").first().waitFor()
  // A right that is taken back is taken from the page.
  writeFileSync(`${folder}/access.toml`, await entry("operator", ""))
  server.process.kill("SIGHUP")
  await until("a word", async () => (await why.textContent()) === "This token lacks the right `metrics`, which this page needs.")
  assert.deepEqual((await faults()).filter((fault) => !/status of 40[13]/.test(fault)), [])
})
