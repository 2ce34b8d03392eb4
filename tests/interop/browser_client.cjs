// What pages in a browser can do to a Cairn on the loopback interface: whether they can read its answers, and what they
// tried to store. Prints JSON. Usage: browser_client.cjs ENDPOINT BROWSER
const { chromium } = require("playwright-core");

const endpoint = new URL(process.argv[2]);
const port = endpoint.port;

// Runs in a page. Tries everything that a page can send without being asked back, and a read.
const attempt = async ({ url, origin }) => {
  const event = (way) => JSON.stringify({ agent_id: "forged", action_name: `${origin} ${way}` });
  const outcome = async (request) => {
    try {
      const response = await request;
      return response.type === "opaque" ? "opaque" : `${response.status} ${await response.text()}`;
    } catch (error) {
      return `blocked: ${error.message}`;
    }
  };
  const post = (way, options) => outcome(fetch(`${url}/v1/events`, { method: "POST", body: event(way), ...options }));
  const json = { headers: { "content-type": "application/json" } };
  const results = {
    read: await outcome(fetch(`${url}/v1/events`)),
    readOpaque: await outcome(fetch(`${url}/v1/events`, { mode: "no-cors" })),
    write: await post("json", json),
    writeText: await post("text", { mode: "no-cors", headers: { "content-type": "text/plain" } }),
    writeBlob: await post("blob", { mode: "no-cors", body: new Blob([event("blob")]) }),
    writeTraces: await outcome(fetch(`${url}/v1/traces`, { method: "POST", body: "{}", ...json })),
  };
  navigator.sendBeacon(`${url}/v1/events`, new Blob([event("beacon")], { type: "text/plain" }));
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action: `${url}/v1/events`, enctype: "text/plain", target: "frame" });
  const frame = Object.assign(document.createElement("iframe"), { name: "frame" });
  const field = Object.assign(document.createElement("input"), { name: event("form").slice(0, -1) + ',"x":"', value: '"}' });
  form.append(field);
  document.body.append(frame, form);
  const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
  form.submit();
  await Promise.race([loaded, new Promise((resolve) => setTimeout(resolve, 5000))]);
  return results;
};

(async () => {
  const browser = await chromium.launch({
    executablePath: process.argv[3],
    // rebound.test is a name whose address became that of the loopback interface. The browser's own protection of the
    // local network is off, because not every browser has it.
    args: [
      "--no-sandbox", "--host-resolver-rules=MAP rebound.test 127.0.0.1, MAP other.test 127.0.0.1",
      "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
    ],
  });
  const results = {};
  for (const [name, origin, url] of [
    // The page came from this name before the name was given another address.
    ["rebound", `http://rebound.test:${port}`, `http://rebound.test:${port}`],
    ["other", "http://other.test", endpoint.origin],
    ["own", endpoint.origin, endpoint.origin],
  ]) {
    const page = await browser.newPage();
    await page.route(`${origin}/page`, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><body>" }));
    await page.goto(`${origin}/page`);
    results[name] = await page.evaluate(attempt, { url, origin });
    await page.close();
  }
  await browser.close();
  console.log(JSON.stringify(results));
})();
