// The protocol's official TypeScript client, unmodified, while the server is killed and started again over its folder.
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { createFetchWithBackoff, DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import { afterAll, beforeAll, expect, test } from "vitest"

const psa = process.env.PSA_TEST_DURABLE_BINARY
if (!psa) {
  throw new Error("PSA_TEST_DURABLE_BINARY is missing: run .ci/durable-streams")
}

const folder = mkdtempSync(join(tmpdir(), "psa-durable-"))
let server: ChildProcess
let address = "127.0.0.1:0"

async function start() {
  server = spawn(psa!, ["serve", "--listen", "127.0.0.1:0", "--http", address, "--data", folder], {
    stdio: ["ignore", "pipe", "ignore"],
  })
  let said = ""
  for await (const piece of server.stdout!) {
    said += piece
    const found = said.match(/curl -N http:\/\/([^/]*)\//)
    if (found) {
      address = found[1]
      // Nobody reads the rest.
      server.stdout!.resume()
      return
    }
  }
  throw new Error(`the server did not start: ${said}`)
}

async function kill() {
  const gone = once(server, "exit")
  server.kill("SIGKILL")
  await gone
}

beforeAll(start)
afterAll(async () => {
  await kill()
  rmSync(folder, { recursive: true })
})

type Item = { n: number }
const items = (count: number): Item[] => Array.from({ length: count }, (_, n) => ({ n }))

/** Follows until there are `count` items. A client whose stream ends for good is replaced, where it stopped. */
async function follow(url: string, live: "long-poll" | "sse", count: number) {
  const found: Item[] = []
  let offset = "-1"
  while (found.length < count) {
    try {
      const response = await stream<Item>({ url, offset, live })
      await new Promise<void>((resolve, reject) => {
        response.subscribeJson(async (batch) => {
          found.push(...batch.items)
          offset = batch.offset
          if (found.length >= count) resolve()
        })
        response.closed.then(resolve, reject)
      })
      response.cancel()
    } catch {
      await sleep(50)
    }
  }
  return found
}

test("a producer and its followers go on, and each item is there once", async () => {
  const count = 1_500
  const url = `http://${address}/v1/stream/killed/again`
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  expect((await fetch(url)).headers.get("psa-durability")).toBe("synced")
  const followers = (["long-poll", "sse"] as const).map((live) => follow(url, live, count))
  const failures: Error[] = []
  const onError = (error: Error) => void failures.push(error)
  // As the client offers it: what gets no answer is sent again.
  const again = createFetchWithBackoff(fetch, { initialDelay: 20, maxDelay: 200, multiplier: 2 })
  const producer = new IdempotentProducer(handle, "writer", { onError, lingerMs: 1, maxInFlight: 1, fetch: again })
  let done = false
  const publishing = (async () => {
    for (const item of items(count)) {
      producer.append(JSON.stringify(item))
      if (item.n % 3 === 0) await sleep(1)
    }
    await producer.flush()
    done = true
  })()
  let kills = 0
  while (!done || kills < 4) {
    await sleep(150)
    await kill()
    kills += 1
    await start()
    await sleep(kills > 8 ? 1_000 : 0)
  }
  await publishing
  expect(failures).toEqual([])
  for (const follower of followers) expect(await follower).toEqual(items(count))
  const whole = await stream<Item>({ url, offset: "-1", live: false })
  expect(await whole.json()).toEqual(items(count))
}, 120_000)
