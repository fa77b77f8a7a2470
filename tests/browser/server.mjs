// What tests in JavaScript need beside a browser: lots that can be drawn again, the real server, a proxy that
// cuts connections, and subscribers that stall.

import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import http from "node:http"
import net from "node:net"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Numbers from 0 up to 1 that a seed repeats (mulberry32). */
export function lots(seed) {
  let state = seed >>> 0
  const draw = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  return { draw, between: (least, most) => least + Math.floor(draw() * (most - least + 1)) }
}

export const seed = Number(process.env.PSA_TEST_SEED ?? Date.now() % 1e9)

export const sleep = (ms) => new Promise((go) => setTimeout(go, ms))

/** Waits until `look` finds something. The time is only how long a failure takes. */
export async function until(what, look, patience = 60_000) {
  const end = Date.now() + patience
  for (;;) {
    const found = await look()
    if (found) return found
    if (Date.now() > end) throw new Error(`not in ${patience} ms: ${what}`)
    await sleep(50)
  }
}

const ends = new WeakMap()

/** Does this when the test ends: what began last ends first. */
export function later(t, end) {
  if (!ends.has(t)) {
    const stack = []
    ends.set(t, stack)
    t.after(async () => {
      while (stack.length) await stack.pop()()
    })
  }
  ends.get(t).push(end)
}

const binary = () => {
  const found = [process.env.PSA_TEST_BINARY, `${process.env.CARGO_TARGET_DIR ?? `${root}target`}/debug/psa`].find((path) => path && existsSync(path))
  if (!found) throw new Error("there is no psa: run `cargo build`, or .ci/browser, which does")
  return found
}

/** A server with its HTTP API; `settings` are more arguments. */
export class Server {
  constructor(settings = []) {
    this.settings = settings
    this.http = "127.0.0.1:0"
    this.listen = "127.0.0.1:0"
  }

  async start() {
    const process_ = spawn(binary(), ["serve", "--listen", this.listen, "--http", this.http, ...this.settings], { stdio: ["ignore", "pipe", "pipe"] })
    this.process = process_
    let said = ""
    process_.stdout.on("data", (data) => (said += data))
    process_.stderr.on("data", (data) => (said += data))
    this.http = await until("the server's address", () => {
      if (process_.exitCode !== null) throw new Error(`the server ended: ${said}`)
      return said.match(/curl -N http:\/\/([^/]*)\//)?.[1]
    })
    this.binary = said.match(/--server (\S+)/)?.[1]
    this.port = Number(this.http.split(":")[1])
    this.url = `http://${this.http}`
    return this
  }

  /** As if the power went. */
  async kill() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return
    const ended = new Promise((go) => this.process.once("exit", go))
    this.process.kill("SIGKILL")
    await ended
  }

  async ask(method, path, body, headers = {}) {
    const answer = await fetch(this.url + path, { method, body, headers })
    const text = await answer.text()
    if (!answer.ok) throw Object.assign(new Error(`${method} ${path}: ${answer.status} ${text}`), { status: answer.status })
    return text ? JSON.parse(text) : null
  }

  make(topic, settings = {}) {
    return this.ask("PUT", `/topics/${encodeURIComponent(topic)}`, JSON.stringify(settings))
  }

  describe(topic) {
    return this.ask("GET", `/topics/${encodeURIComponent(topic)}`)
  }

  /** Publishes records of text in one batch. */
  publish(topic, records) {
    const parts = records.map((record) => {
      const bytes = Buffer.from(record)
      const length = Buffer.alloc(4)
      length.writeUInt32LE(bytes.length)
      return Buffer.concat([length, bytes])
    })
    return this.ask("POST", `/topics/${encodeURIComponent(topic)}`, Buffer.concat(parts), { "Content-Type": "application/vnd.psa.records" })
  }

  /** `psa` with these arguments, as a process. */
  run(...args) {
    return spawn(binary(), args, { stdio: "ignore" })
  }
}

/** A subscriber over HTTP that throws away what it gets; it can stop taking, and go on. */
export class Subscriber {
  static async open(server, topic) {
    const subscriber = new Subscriber()
    const path = `/topics/${encodeURIComponent(topic)}/events?from=next`
    subscriber.bytes = 0
    subscriber.response = await new Promise((go, fail) => {
      subscriber.request = http.get({ host: "127.0.0.1", port: server.port, path, agent: false }, go)
      subscriber.request.on("error", (error) => (subscriber.response ? null : fail(error)))
    })
    if (subscriber.response.statusCode !== 200) throw new Error(`${topic}: ${subscriber.response.statusCode}`)
    subscriber.response.on("data", (data) => (subscriber.bytes += data.length))
    subscriber.response.on("error", () => {})
    return subscriber
  }

  stall() {
    this.response.pause()
  }

  goOn() {
    this.response.resume()
  }

  close() {
    this.request.destroy()
  }
}

/** Passes connections on, and cuts some of them after some bytes, whatever they are in the middle of. */
export class Proxy {
  cuts = 0
  /** No cut is within these bytes. */
  spares = undefined
  /** Says after how many bytes of answers a connection is cut; Infinity: never. */
  #budget = () => Infinity
  #sockets = new Set()

  /** Cuts what is there, and each later connection after as many bytes as `budget` says. */
  cut(budget) {
    this.#budget = budget
    this.#sockets.forEach((socket) => socket.destroy())
  }

  static async start(server) {
    const proxy = new Proxy()
    proxy.listener = net.createServer((client) => {
      const upstream = net.connect(server.port, "127.0.0.1")
      let left = proxy.#budget()
      const cut = () => {
        proxy.#sockets.delete(client)
        client.destroy()
        upstream.destroy()
      }
      proxy.#sockets.add(client)
      for (const socket of [client, upstream]) {
        socket.on("error", cut)
        socket.on("close", cut)
      }
      client.pipe(upstream)
      upstream.on("data", (data) => {
        if (data.length < left) {
          left -= data.length
          client.write(data)
          return
        }
        proxy.cuts += 1
        upstream.removeAllListeners("data")
        if (proxy.spares) {
          const begin = data.indexOf(proxy.spares, Math.max(0, left - proxy.spares.length + 1))
          if (begin >= 0 && begin < left) left = begin
          else if (left === data.length) left -= proxy.spares.length
        }
        // What was allowed still goes out: the cut is in the middle of an event, not of nothing.
        client.write(data.subarray(0, left), cut)
      })
    })
    await new Promise((go) => proxy.listener.listen(0, "127.0.0.1", go))
    proxy.url = `http://127.0.0.1:${proxy.listener.address().port}`
    return proxy
  }

  stop() {
    this.listener.close()
    this.cut(() => 0)
  }
}
