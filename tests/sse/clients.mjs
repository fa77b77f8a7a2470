// Event-stream clients that others wrote, unmodified. Each is used as its own documents say, and tells everything that
// it hands out: `tell(name, data, id)`, with `message` for an event without a name. `open` returns what ends it.

// Some of them look for a page's globals before they run outside of one.
globalThis.window ??= globalThis
globalThis.addEventListener ??= () => {}
globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} }

/** The events that a stream has. */
const NAMES = ["message", "begin", "base64", "gap", "caught-up", "end"]

/** One that has the interface of a browser's EventSource. */
const asInBrowsers = (make) => ({
  open: async (url, tell) => {
    const source = await make(url)
    for (const name of NAMES) source.addEventListener(name, (event) => tell(name, event.data, event.lastEventId))
    source.onerror = () => {}
    return () => source.close()
  },
})

/** By the name of its package. `hasty`: it takes an id for its own before it has the event's last byte. */
export const clients = {
  "eventsource@3": asInBrowsers(async (url) => new (await import("eventsource-3")).EventSource(url)),
  "eventsource@4": asInBrowsers(async (url) => new (await import("eventsource-4")).EventSource(url)),
  "event-source-polyfill": asInBrowsers(async (url) => {
    const { EventSourcePolyfill } = (await import("event-source-polyfill")).default
    return new EventSourcePolyfill(url, {})
  }),
  "extended-eventsource": {
    ...asInBrowsers(async (url) => new (await import("extended-eventsource")).EventSource(url)),
    hasty: true,
  },
  "@microsoft/fetch-event-source": {
    hasty: true,
    open: async (url, tell) => {
      const { fetchEventSource } = await import("@microsoft/fetch-event-source")
      const stop = new AbortController()
      fetchEventSource(url, {
        signal: stop.signal,
        fetch,
        openWhenHidden: true,
        onmessage: ({ event, data, id }) => tell(event || "message", data, id),
        onclose() {
          throw new Error("it is to come back")
        },
        onerror() {},
      }).catch(() => {})
      return () => stop.abort()
    },
  },
  "event-source-plus": {
    open: async (url, tell) => {
      const { EventSourcePlus } = await import("event-source-plus")
      const source = new EventSourcePlus(url, { maxRetryInterval: 2_000 })
      const controller = source.listen({
        onMessage: ({ event, data, id }) => tell(event || "message", data, id),
        onRequestError() {},
        onResponseError() {},
      })
      return () => controller.abort()
    },
  },
}
