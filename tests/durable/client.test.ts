// The protocol's official TypeScript client, unmodified, against a server that runs already.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import { expect, test } from "vitest"

const baseUrl = process.env.PSA_TEST_DURABLE_URL
if (!baseUrl) {
  throw new Error("PSA_TEST_DURABLE_URL is missing: run .ci/durable-streams")
}

let made = 0
const fresh = () => `${baseUrl}/v1/stream/typescript/${process.pid}-${made++}`

type Item = { n: number }
const items = (from: number, to: number): Item[] =>
  Array.from({ length: to - from }, (_, i) => ({ n: from + i }))

/** Reads live until there are `count` items; says where it ended. */
async function follow(url: string, live: "long-poll" | "sse", offset: string, count: number) {
  const response = await stream<Item>({ url, offset, live })
  const found: Item[] = []
  let end = offset
  await new Promise<void>((resolve) => {
    response.subscribeJson(async (batch) => {
      found.push(...batch.items)
      end = batch.offset
      if (found.length >= count) resolve()
    })
  })
  response.cancel()
  return { found, end }
}

test("a producer's appends are there once, in order, in every kind of read", async () => {
  const url = fresh()
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  const failures: Error[] = []
  const onError = (error: Error) => void failures.push(error)
  const producer = new IdempotentProducer(handle, "writer", { onError })
  for (const item of items(0, 500)) producer.append(JSON.stringify(item))
  await producer.flush()
  expect(failures).toEqual([])

  const caughtUp = await stream<Item>({ url, offset: "-1", live: false })
  expect(await caughtUp.json()).toEqual(items(0, 500))

  for (const live of ["long-poll", "sse"] as const) {
    const { found, end } = await follow(url, live, "-1", 500)
    expect(found).toEqual(items(0, 500))
    expect(end).toEqual((await handle.head()).offset)
  }
})

test.each(["long-poll", "sse"] as const)("%s brings what comes later, from where a reader stopped", async (live) => {
  const url = fresh()
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  await handle.append(JSON.stringify({ n: 0 }))
  const first = await follow(url, live, "-1", 1)
  expect(first.found).toEqual(items(0, 1))
  const rest = follow(url, live, first.end, 3)
  for (const item of items(1, 4)) await handle.append(JSON.stringify(item))
  expect((await rest).found).toEqual(items(1, 4))
})

test("a producer of a former life is refused, and one that is sent again is not appended twice", async () => {
  const url = fresh()
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  const old = new IdempotentProducer(handle, "writer", { epoch: 0 })
  old.append(JSON.stringify({ n: 0 }))
  await old.flush()
  const again = new IdempotentProducer(handle, "writer", { epoch: 0 })
  again.append(JSON.stringify({ n: 0 }))
  await again.flush()
  const next = new IdempotentProducer(handle, "writer", { epoch: 1 })
  next.append(JSON.stringify({ n: 1 }))
  await next.flush()
  const failures: Error[] = []
  const late = new IdempotentProducer(handle, "writer", { epoch: 0, onError: (error) => void failures.push(error) })
  late.append(JSON.stringify({ n: 2 }))
  await late.flush().catch((error) => void failures.push(error))
  expect(failures.length).toBeGreaterThan(0)
  const response = await stream<Item>({ url, offset: "-1", live: false })
  expect(await response.json()).toEqual(items(0, 2))
})

test("bytes come back as they were", async () => {
  const url = fresh()
  const handle = await DurableStream.create({ url, contentType: "application/octet-stream" })
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
  await handle.append(bytes)
  await handle.append(bytes)
  const response = await stream({ url, offset: "-1", live: false })
  expect([...(await response.body())]).toEqual([...bytes, ...bytes])
})

test("a stream that is closed ends its readers, takes nothing more, and can be deleted", async () => {
  const url = fresh()
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  await handle.append(JSON.stringify({ n: 0 }))
  for (const live of ["long-poll", "sse"] as const) {
    const response = await stream<Item>({ url, offset: "-1", live })
    if (live === "long-poll") await handle.close()
    const found: Item[] = []
    for await (const item of response.jsonStream()) found.push(item)
    expect(found).toEqual(items(0, 1))
    expect(response.streamClosed).toBe(true)
  }
  await expect(handle.append(JSON.stringify({ n: 1 }))).rejects.toThrow()
  expect((await handle.head()).streamClosed).toBe(true)
  await handle.delete()
  await expect(stream({ url, offset: "-1", live: false })).rejects.toThrow()
})
