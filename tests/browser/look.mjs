// What the tests of the live page see on it: its rows, what is drawn on their canvases, and what it cost.

import { until } from "./harness.mjs"

/** Waits until the page shows this many topics. */
export const shows = (page, topics) => until(`${topics} topics on the page`, async () => (await page.locator("#rows > li").count()) === topics)

/** The row of one topic, which may have any name. */
export function row(page, topic) {
  return page.locator("#rows > li").filter({ has: page.locator("h3 button", { hasText: topic }) })
}

/** What the page knows of a topic, in its own words: offsets, segments, bytes. */
export function known(page, topic) {
  return page.evaluate((name) => [...document.querySelectorAll("#rows > li")].map((li) => li.row.topic).find((topic) => topic.name === name)?.now, topic)
}

/** The line below the drawing. */
export const words = (page, topic) => row(page, topic).locator(".what").textContent()

/**
 * What is drawn for a topic: each block from the left by what it is (`held`, `kept`, `shared`, `open`), and the
 * colours of what stands above each. Read from the pixels, by the colours of the style sheet.
 */
export function drawn(page, topic) {
  return row(page, topic)
    .locator("canvas")
    .evaluate(async (canvas) => {
      const { TOP } = await import("/live/draw.js")
      const style = getComputedStyle(document.documentElement)
      const colour = (name) => style.getPropertyValue(`--${name}`).trim().match(/\w\w/g).map((hex) => parseInt(hex, 16))
      const names = ["open", "shared", "held", "kept", "cursor", "lease", "held-ink"]
      const inks = names.map((name) => [name, colour(name)])
      const nearest = ([r, g, b]) => {
        const far = ([, [x, y, z]]) => Math.abs(x - r) + Math.abs(y - g) + Math.abs(z - b)
        const best = inks.reduce((one, other) => (far(other) < far(one) ? other : one))
        return far(best) < 24 ? best[0] : `rgb(${r},${g},${b})`
      }
      const scale = canvas.width / canvas.clientWidth
      if (!canvas.width) return null
      // Read from a copy: a browser treats a canvas that is read from as another kind.
      const copy = new OffscreenCanvas(canvas.width, canvas.height)
      const context = copy.getContext("2d", { willReadFrequently: true })
      context.drawImage(canvas, 0, 0)
      // Below the upper edge of the open one, and above what is pooled or unlinked.
      const line = context.getImageData(0, Math.round((TOP + 4) * scale), canvas.width, 1).data
      const runs = []
      let within = false
      for (let x = 0; x < canvas.width; x++) {
        const solid = line[4 * x + 3] > 200
        if (solid && !within) runs.push({ from: x, is: nearest(line.subarray(4 * x + 4, 4 * x + 7)) })
        if (solid) runs.at(-1).to = x
        within = solid
      }
      // The open one is an outline: its two sides are one block.
      const blocks = []
      for (const run of runs) {
        if (run.is === "open" && blocks.at(-1)?.is === "open") blocks.at(-1).to = run.to
        else blocks.push(run)
      }
      for (const block of blocks) {
        const wide = block.to - block.from + 1
        const above = context.getImageData(block.from, 0, wide, Math.round((TOP - 1) * scale)).data
        const found = new Set()
        for (let at = 0; at < above.length; at += 4) if (above[at + 3] > 240) found.add(nearest(above.subarray(at, at + 3)))
        block.above = [...found].filter((is) => !is.startsWith("rgb"))
      }
      return blocks.map(({ is, above }) => ({ is, above }))
    })
}

/** Counts what the page does from its first line on: put it in front with `addInitScript`. */
export function counting() {
  const counts = (window.counts = { frames: 0, draws: 0, most: 0, faded: 0, mutations: 0, ticks: 0, announced: 0, drawn: new Set(), long: [], gaps: [] })
  const { clearRect } = CanvasRenderingContext2D.prototype
  let inFrame = 0
  CanvasRenderingContext2D.prototype.clearRect = function (...where) {
    if (this.canvas.closest("#rows")) {
      counts.draws += 1
      inFrame += 1
      counts.drawn.add(this.canvas)
    }
    return clearRect.apply(this, where)
  }
  const alpha = Object.getOwnPropertyDescriptor(CanvasRenderingContext2D.prototype, "globalAlpha")
  Object.defineProperty(CanvasRenderingContext2D.prototype, "globalAlpha", {
    ...alpha,
    set(value) {
      if (value > 0 && value < 1 && this.canvas.closest("#rows")) counts.faded += 1
      alpha.set.call(this, value)
    },
  })
  let last = 0
  const frame = (time) => {
    counts.frames += 1
    if (last) counts.gaps.push(time - last)
    last = time
    counts.most = Math.max(counts.most, inFrame)
    inFrame = 0
    requestAnimationFrame(frame)
  }
  requestAnimationFrame(frame)
  new PerformanceObserver((list) => counts.long.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask" })
  document.addEventListener("DOMContentLoaded", () => {
    new MutationObserver((list) => {
      counts.mutations += list.length
      const live = list.filter(({ target }) => (target.closest ? target : target.parentElement)?.closest("[role=status], [aria-live]:not([aria-live=off])"))
      counts.announced += live.length
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true })
  })
  window.restart = () => {
    counts.drawn.clear()
    Object.assign(counts, { frames: 0, draws: 0, most: 0, faded: 0, mutations: 0, announced: 0, long: [], gaps: [] })
  }
}

/** The feed, as another viewer gets it: how many bytes each event has. */
export async function feed(server, events) {
  const stop = new AbortController()
  const answer = await fetch(`${server.url}/live/events`, { signal: stop.signal })
  const found = []
  let rest = ""
  const decoder = new TextDecoder()
  for await (const piece of answer.body) {
    rest += decoder.decode(piece, { stream: true })
    const parts = rest.split("\n\n")
    rest = parts.pop()
    for (const part of parts) {
      const kind = part.match(/^event: (\w+)$/m)?.[1]
      if (kind) found.push({ kind, bytes: Buffer.byteLength(part) + 2, data: JSON.parse(part.match(/^data: (.*)$/m)[1]) })
    }
    if (found.length >= events) break
  }
  stop.abort()
  return found
}

/** The value below which this part of the numbers lies. */
export function quantile(numbers, part) {
  const sorted = [...numbers].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? NaN
}

/** What the page's own thread did for some seconds, as figures. */
export async function measure(page, seconds) {
  const devtools = await page.context().newCDPSession(page)
  await devtools.send("Performance.enable")
  const metrics = async () => Object.fromEntries((await devtools.send("Performance.getMetrics")).metrics.map(({ name, value }) => [name, value]))
  await page.evaluate(() => window.restart())
  const before = await metrics()
  await page.waitForTimeout(seconds * 1000)
  const after = await metrics()
  const counts = await page.evaluate(() => ({ ...window.counts, drawn: window.counts.drawn.size }))
  const busy = (name) => (after[name] - before[name]) / (after.Timestamp - before.Timestamp)
  await devtools.detach()
  return {
    ...counts,
    seconds: after.Timestamp - before.Timestamp,
    busy: busy("TaskDuration"),
    script: busy("ScriptDuration"),
    layout: busy("LayoutDuration") + busy("RecalcStyleDuration"),
    heap: after.JSHeapUsedSize,
    nodes: after.Nodes,
  }
}

/** The figures in a line each. */
export function figures(found) {
  const ms = (number) => `${number.toFixed(1)} ms`
  const percent = (part) => `${(100 * part).toFixed(1)} %`
  const [half, most, nearlyAll, worst] = [0.5, 0.95, 0.99, 1].map((part) => ms(quantile(found.gaps, part)))
  return [
    ["frames", `${(found.frames / found.seconds).toFixed(1)} a second over ${found.seconds.toFixed(0)} s; between two: median ${half}, 95 % ${most}, 99 % ${nearlyAll}, longest ${worst}`],
    ["long tasks (over 50 ms)", found.long.length ? `${found.long.length}, the longest ${ms(Math.max(...found.long))}` : "none"],
    ["the page's thread", `busy ${percent(found.busy)} of the time: script ${percent(found.script)}, style and layout ${percent(found.layout)}`],
    ["drawings", `${(found.draws / found.seconds).toFixed(0)} a second, at most ${found.most} in a frame, of ${found.drawn} topics`],
    ["document", `${found.nodes} nodes, ${(found.mutations / found.seconds).toFixed(0)} changes a second; script heap ${(found.heap / 1048576).toFixed(1)} MiB`],
  ]
}
