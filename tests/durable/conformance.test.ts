// The protocol's own conformance suite against a server that runs already.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.PSA_TEST_DURABLE_URL
if (!baseUrl) {
  throw new Error("PSA_TEST_DURABLE_URL is missing: run .ci/durable-streams")
}

runConformanceTests({ baseUrl })
