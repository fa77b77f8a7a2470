// Event streams, over fetch rather than with a browser's EventSource: that one cannot send a token, does not say why
// it was refused, and gives up for ever on a server that is just going or coming. This one comes back by itself and
// says what it has, by the same rules.

/** The token, if the server wants one. It lives as long as the page. */
let token = "";

export function useToken(text) {
  token = text;
}

/** What every request says. */
export function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

/**
 * Follows `url`. `on` has a function for each kind of event, which gets its data and id; `state` is told "open",
 * "away" (it will come back by itself) or "over", with the status and the reason that the server gave. Returns what
 * ends it; after that nothing is told any more.
 */
export function follow(url, on, state) {
  const stop = new AbortController();
  let last = "";
  let retry = 3000;
  const tell = (...what) => stop.signal.aborted || state(...what);
  const take = (event) => {
    if (event.retry) retry = event.retry;
    if (event.id !== undefined) last = event.id;
    if (event.data === undefined || stop.signal.aborted) return;
    try {
      on[event.kind]?.(event.data, last);
    } catch (error) {
      // A fault of the page is none of the connection.
      reportError(error);
    }
  };
  const run = async () => {
    while (!stop.signal.aborted) {
      try {
        const more = { Accept: "text/event-stream" };
        if (last) more["Last-Event-ID"] = last;
        const answer = await fetch(url, { headers: headers(more), signal: stop.signal, cache: "no-store" });
        if (answer.status === 204) return tell("over", 204);
        // Refused for good, unless it is only busy, or going.
        if (!answer.ok && answer.status !== 503) return tell("over", answer.status, await reason(answer));
        if (answer.ok) {
          tell("open");
          await read(answer.body, take);
        }
      } catch {
        // Cut off: what came is known by its id.
      }
      tell("away");
      await new Promise((go) => setTimeout(go, retry));
    }
  };
  run();
  return () => stop.abort();
}

/** Why something was refused, in the server's words; a proxy may have no such. */
export async function reason(answer) {
  try {
    return await answer.json();
  } catch {
    return { code: "", detail: `status ${answer.status}` };
  }
}

/** Reads a stream of events to its end, by the rules of the HTML standard. */
async function read(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { kind: "message" };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        take(event);
        event = { kind: "message" };
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") event.data = event.data === undefined ? text : `${event.data}\n${text}`;
      if (field === "event") event.kind = text;
      if (field === "id") event.id = text;
      if (field === "retry" && /^\d+$/.test(text)) event.retry = Number(text);
    }
  }
}
