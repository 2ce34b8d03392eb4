// Stores, lists and verifies an event with the types that openapi-typescript generates. Arguments: URL.

import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });

function present<T>(value: T | undefined, error: unknown): T {
  if (value === undefined) {
    throw new Error(JSON.stringify(error));
  }
  return value;
}

const event: components["schemas"]["NewEvent"] = {
  agent_id: "typescript-client",
  action_type: "TOOL_CALL",
  action_name: "search",
  labels: { env: "test", attempt: 2, is_dry: true },
};
const posted = await client.POST("/v1/events", { body: event });
const stored = present(posted.data, posted.error);
if (posted.response.status !== 201 || stored.sequence !== 1) {
  throw new Error(JSON.stringify(stored));
}

const listed = await client.GET("/v1/events", { params: { query: { agent_id: "typescript-client" } } });
const events = present(listed.data, listed.error);
const first = events[0];
// An erased event has no labels.
const labels = first !== undefined && "labels" in first ? first.labels : undefined;
if (events.length !== 1 || labels?.["attempt"] !== 2) {
  throw new Error(JSON.stringify(events));
}

const verified = await client.GET("/v1/verify", { params: { query: { agent_id: "typescript-client" } } });
const verdict = present(verified.data, verified.error);
if (!("valid" in verdict) || !verdict.valid) {
  throw new Error(JSON.stringify(verdict));
}
console.log("openapi-typescript: an event stored, listed and verified");
