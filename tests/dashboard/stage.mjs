// A browser at the dashboard, and the test that runs it at the other end of standard input and output.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.DASHBOARD_MODULES}/x.js`);
const { chromium } = require("playwright-core");
export const jsqr = require("jsqr");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const admin = process.env.DASHBOARD_URL;
const pictures = process.env.DASHBOARD_PICTURES;
export const pages = [
  "/", "/ui/routes", "/ui/tokens", "/ui/providers", "/ui/consents", "/ui/requests", "/ui/setup",
  "/ui/config",
];

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Has the test do something; answers what it says.
export async function ask(what, ...details) {
  process.stdout.write(`${JSON.stringify([what, ...details])}\n`);
  const { value } = await lines.next();
  return JSON.parse(value);
}

const browser = await chromium.launch({
  executablePath: process.env.DASHBOARD_BROWSER,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
  ],
});

// A page whose every complaint, refused resource and foreign request is a failure at the end.
export async function visit(options = {}) {
  const context = await browser.newContext({ baseURL: admin, ignoreHTTPSErrors: true, ...options });
  const wrong = [];
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  page.on("console", (message) => {
    const loud = message.type() === "error" || message.type() === "warning";
    // What the test itself breaks: a connection that ends, a status that is meant.
    const meant = /net::ERR_|the server responded with a status of 4|ERR_INCOMPLETE/.test(message.text());
    if (loud && !meant) wrong.push(message.text());
  });
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== new URL(admin).origin && protocol !== "data:") wrong.push(`a request to ${request.url()}`);
  });
  page.on("dialog", (dialog) => dialog.accept());
  await page.exposeFunction("violated", (text) => wrong.push(text));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      globalThis.violated(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  page.wrong = wrong;
  return page;
}

// Serious findings of axe-core, in words.
export async function findings(page) {
  // By the browser's own debugger, which the page's policy does not concern.
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)} ${node.failureSummary}`));
}

export async function picture(page, name) {
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true, animations: "disabled" });
}

export async function end(...visited) {
  for (const page of visited) assert.deepEqual(page.wrong, []);
  await browser.close();
  process.exit(0);
}

export { assert };
