// What the live page is tested and photographed with: many topics, many cursors, and publishing that goes
// on. Some subscribers stall, some leases have nobody to hold them.

import { Subscriber, lots, sleep } from "./harness.mjs"

/** Starts it; `stop` ends it. Settings of the server: see `SETTINGS`. */
export class Load {
  subscribers = []
  stopped = false
  records = 0

  static async start(server, { topics, cursors, seed, names = (i) => `topic-${String(i).padStart(3, "0")}`, pause = 40 }) {
    const load = new Load()
    load.draw = lots(seed)
    load.topics = Array.from({ length: topics }, (_, i) => names(i))
    for (const [i, topic] of load.topics.entries()) {
      const kept = [{ retention: "nothing" }, { retention: { records: 500 } }, { retention: { bytes: 40_000 } }][i % 3]
      await server.make(topic, { segment_bytes: 4096 << (i % 3), memory_limit: 1 << 20, overflow: "evict", ...kept })
    }
    for (let i = 0; i < cursors; i++) {
      const topic = load.topics[i % topics]
      load.subscribers.push(Object.assign(await Subscriber.open(server, topic), { topic }))
    }
    load.done = load.#publish(server, pause)
    return load
  }

  async #publish(server, pause) {
    while (!this.stopped) {
      // A few topics have most of the traffic.
      const topic = this.topics[Math.floor(this.draw.draw() ** 2 * this.topics.length)]
      const records = Array.from({ length: this.draw.between(1, 40) }, () => "r".repeat(this.draw.between(20, 120)))
      await server.publish(topic, records)
      this.records += records.length
      await sleep(this.draw.between(0, pause))
    }
  }

  of(topic) {
    return this.subscribers.filter((subscriber) => subscriber.topic === topic)
  }

  /** Publishes no more; those who read stay. */
  async rest() {
    this.stopped = true
    await this.done
  }

  async stop() {
    await this.rest()
    this.subscribers.forEach((subscriber) => subscriber.close())
  }
}

/** A small send buffer shows at once who stalls. */
export const SETTINGS = ["--send-buffer", "4KiB", "--timeout-stall", "10m"]
