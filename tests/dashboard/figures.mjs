// Charts with axes that lead on, moments in the reader's own time, the config, the log level, and wide screens.
import { ask, assert, end, findings, picture, visit } from "./stage.mjs";

await ask("traffic");
const page = await visit({ viewport: { width: 1280, height: 900 }, timezoneId: "Asia/Bangkok" });

// The chart of traffic: an axis with its greatest value, times below, and bars that lead to their requests.
await page.goto("/");
await page.waitForFunction(() => document.documentElement.dataset.live === "on");
const chart = page.locator(".bars.tall");
await chart.locator("a").first().waitFor({ state: "attached" });
const ticks = await chart.locator(".tick").allTextContents();
assert.ok(ticks.filter((text) => text.endsWith("/s")).length === 3, ticks.join());
assert.ok(ticks.filter((text) => /^\d\d:\d\d$/.test(text)).length >= 3, ticks.join());
const told = await chart.locator("title").first().textContent();
assert.match(told, /^\d\d:\d\d:\d\d: requests \d+ \(.+\/s\)/);
const href = await chart.locator("a").first().getAttribute("href");
assert.match(href, /^\/ui\/requests\?since=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z&until=.*Z$/);
assert.equal(await chart.locator("a:not([tabindex='-1'])").count(), 0, "the keyboard has the table");

// The chart of durations has the quantiles, and nothing else on the page has them.
assert.deepEqual(
  (await page.locator(".bars.histogram text.quantile").allTextContents()).map((text) => text.slice(0, 3)),
  ["p50", "p95", "p99"],
);
assert.equal(await page.locator(".tile", { hasText: /p\d\d/ }).count(), 0);

// The same figures in tables, for the keyboard and for screen readers.
await page.getByText("Traffic as a table").click();
await page.getByText("Durations as a table").click();
assert.equal(await page.locator("details[open] tbody tr", { has: page.locator("time") }).count(), 15);
assert.deepEqual(await findings(page), []);
await picture(page, "overview-tables");
await page.waitForTimeout(1500);
assert.equal(await page.locator("details[open]").count(), 2, "they stay open");

// What is wrong is said in one sentence.
await page.getByRole("heading", { name: /One thing is wrong. abbeycross: no token/ }).waitFor();

// A click leads to the requests of that time.
await chart.locator("a").last().locator(".hit").click({ force: true });
await page.getByRole("heading", { name: "Requests" }).waitFor();
assert.match(page.url(), /since=.*until=/);

// Moments are local; UTC is their title. Without a script they are UTC.
await page.goto("/ui/tokens");
await page.waitForFunction(() => document.documentElement.dataset.live === "on");
const moment = page.locator("dl.ends time").first();
const iso = await moment.getAttribute("datetime");
const local = new Date(Date.parse(iso) + 7 * 3600 * 1000).toISOString().slice(11, 19);
assert.ok((await moment.textContent()).endsWith(local), `${iso} is ${local}`);
assert.equal(await moment.getAttribute("title"), `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`);
assert.equal(await page.locator(".title .zone").textContent(), "GMT+7");
await page.waitForTimeout(1500);
assert.ok((await moment.textContent()).endsWith(local), "live, too");
const plain = await visit({ javaScriptEnabled: false });
await plain.goto("/ui/tokens");
const there = plain.locator("dl.ends time").first();
assert.ok((await there.textContent()).endsWith((await there.getAttribute("datetime")).slice(11, 19)));
assert.equal(await plain.locator(".title .zone").textContent(), "UTC");

// Tokens: failing ones first, each with its route.
const rows = page.locator("tr.token");
assert.match(await rows.first().textContent(), /abbeycross[\s\S]*Resting/);
await rows.first().getByRole("link", { name: "abbeycross" }).first().waitFor();

// Consents that wait are seen, whoever has started them.
const user = "waiting <b>Ann</b>";
const url = await ask("begin", user);
await page.goto("/ui/consents");
const waiting = page.locator("#pending tbody tr");
await waiting.filter({ hasText: "Ann" }).waitFor();
assert.equal(await waiting.locator("bdi").textContent(), user);
assert.equal(await ask("agree", url, user), 200);
await waiting.waitFor({ state: "detached" });

// A user's token is shown with the user.
assert.equal(await ask("call-as", "/scb-users/echo/x", user), 200);
await page.goto("/ui/tokens");
await rows.filter({ hasText: "Ann" }).getByText("of client erp").waitFor();
assert.equal(await rows.locator("bdi").textContent(), user);
await rows.getByRole("link", { name: "scb-users" }).waitFor();

// The config has no secret, and the log level ends by itself or by a button.
await page.goto("/ui/config");
await page.getByText("application_secret = \"***\"").waitFor();
assert.deepEqual(await findings(page), []);
await page.getByLabel("Level", { exact: true }).selectOption("debug");
await page.getByRole("button", { name: "Set", exact: true }).click();
await page.getByRole("status").filter({ hasText: "The log level is set" }).waitFor();
await page.locator(".pill.warn", { hasText: "debug" }).waitFor();
assert.deepEqual(await findings(page), []);
await picture(page, "log-level");
await page.getByRole("button", { name: "Back to the config’s level" }).click();
await page.getByText("as the config says").waitFor();

// A wide screen is used, and cards of a row end together.
await page.setViewportSize({ width: 1920, height: 1000 });
await page.goto("/");
await page.waitForFunction(() => document.documentElement.dataset.live === "on");
assert.ok((await page.locator("main").boundingBox()).width > 1700);
const feet = await page.locator(".columns.four > .card").evaluateAll((cards) => cards.map((card) => Math.round(card.getBoundingClientRect().bottom)));
assert.equal(feet.length, 4);
assert.equal(new Set(feet).size, 1, feet.join());
await picture(page, "overview-very-wide");
await end(page, plain);
