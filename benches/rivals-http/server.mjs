// The reference server of Durable Streams, streams in memory, on the port that is named.
import { DurableStreamTestServer } from "@durable-streams/server"

const server = new DurableStreamTestServer({ host: "127.0.0.1", port: Number(process.argv[2]) })
await server.start()
