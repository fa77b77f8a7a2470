// What all browser tests need: the real server and a proxy, from `server.mjs`, and the browser.

import { existsSync } from "node:fs"
import { chromium } from "playwright-core"

export * from "./server.mjs"

/** Headless Chromium of the system. */
export async function browser() {
  const path = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path))
  if (!path) throw new Error("there is no Chromium: install it (apt-get install chromium), or say where it is in CHROMIUM")
  // Without a sandbox only where there can be none: root in a container.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : []
  return chromium.launch({ executablePath: path, args })
}

/** A page that keeps what a user should never see: errors, refusals of the policy, foreign requests. */
export async function watched(context, url) {
  const page = await context.newPage()
  const faults = []
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`)
  })
  page.on("pageerror", (error) => faults.push(`error: ${error}`))
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url())
    if (origin !== url && !["data:", "blob:"].includes(protocol)) faults.push(`foreign: ${request.url()}`)
  })
  await page.addInitScript(() => {
    window.violations = []
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.effectiveDirective}: ${event.blockedURI}`))
  })
  await page.goto(url)
  const found = async () => [...faults, ...(await page.evaluate(() => window.violations))]
  return { page, faults: found }
}
