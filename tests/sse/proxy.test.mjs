// A proxy that compresses whatever its client lets it, as many sites run one: an event arrives at once all the same.

import assert from "node:assert/strict"
import http from "node:http"
import { test } from "node:test"
import compression from "compression"
import express from "express"
import { createProxyMiddleware } from "http-proxy-middleware"
import { Server, later, until } from "../browser/server.mjs"

test("events pass a proxy that compresses", async (t) => {
  const server = await new Server().start()
  later(t, () => server.kill())
  const app = express()
  app.use(compression({ threshold: 0 }))
  app.use(createProxyMiddleware({ target: server.url, changeOrigin: true }))
  const listener = await new Promise((go) => {
    const listener = app.listen(0, "127.0.0.1", () => go(listener))
  })
  later(t, () => {
    listener.closeAllConnections()
    listener.close()
  })
  const { port } = listener.address()
  const headers = { "Accept-Encoding": "gzip", Accept: "text/event-stream" }
  const ask = (path, more = {}) =>
    new Promise((go, fail) => {
      const request = http.get({ host: "127.0.0.1", port, path, headers: { ...headers, ...more } }, go)
      request.on("error", fail)
      later(t, () => request.destroy())
    })
  // It does compress what it may.
  const plain = await ask("/openapi.json", { Accept: "*/*" })
  assert.equal(plain.headers["content-encoding"], "gzip")
  plain.resume()

  await server.ask("PUT", "/v1/stream/s", "x", { "Content-Type": "text/plain" })
  for (const path of ["/topics/t/events", "/live/events", "/v1/stream/s?offset=-1&live=sse"]) {
    const stream = await ask(path)
    assert.equal(stream.statusCode, 200, path)
    assert.equal(stream.headers["content-encoding"], undefined, path)
    let said = ""
    stream.on("data", (data) => (said += data))
    stream.on("error", () => {})
    await until(`an event of ${path}`, () => said.includes("\n\n"), 5_000)
    stream.destroy()
  }
})
