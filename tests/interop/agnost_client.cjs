// Uses the Node SDK of Agnost as its documentation describes. Usage: agnost_client.cjs ENDPOINT ORG_ID
const agnost = require("agnostai");

async function main() {
  const [endpoint, orgId] = process.argv.slice(2);
  agnost.init(orgId, { endpoint });
  agnost.identify("bob", { name: "Bob" });
  const interaction = agnost.begin({
    userId: "bob", agentName: "search-agent", input: "Find it", conversationId: "node-1", properties: { depth: 2 },
  });
  interaction.end("Found", true, 56);
  const failed = agnost.begin({ userId: "bob", agentName: "search-agent", input: "Find more", conversationId: "node-1" });
  failed.end("Nothing", false, 78);
  await agnost.flush();
  await agnost.shutdown();
}

main();
