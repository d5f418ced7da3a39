// Without a script: pages are whole, and buttons are forms.
import { ask, assert, end, pages, picture, visit } from "./stage.mjs";

const page = await visit({ javaScriptEnabled: false, viewport: { width: 1100, height: 800 } });
assert.equal(await ask("call", "/scb/echo/x"), 200);
for (const place of pages) {
  const answer = await page.goto(place);
  assert.equal(answer.status(), 200, place);
  assert.ok(await page.locator("h1").isVisible(), place);
  assert.equal(await page.locator("button:visible", { hasText: /^(Pause|Copy|Dark|Light)$/ }).count(), 0, "no dead buttons");
}
await page.goto("/ui/tokens");
const token = page.locator(".token").filter({ hasText: "scb" });
await token.getByRole("button", { name: "Refresh" }).click();
await page.getByText("A new token was asked for").waitFor();
for (let tries = 0; tries < 50 && await token.locator("dd:text-is('2')").count() === 0; tries += 1) await page.reload();
assert.equal(await token.locator("dt:text-is('Generation') + dd").textContent(), "2");
await token.getByRole("button", { name: "Purge" }).click();
await page.getByText("forgotten").waitFor();
await page.goto("/ui/requests");
await page.getByLabel("Find").fill("echo");
await page.getByRole("button", { name: "Filter" }).click();
assert.match(page.url(), /q=echo/);
await page.goto("/ui/consents");
await page.getByLabel("User").fill("alice");
await page.getByRole("button", { name: "Start" }).click();
assert.ok(await page.locator(".qr").isVisible());
await page.goto("/ui/setup");
await page.getByRole("button", { name: "Reload the config" }).click();
await page.getByText("was read anew").waitFor();
await picture(page, "plain");

// Words that only our own pages know: without them nothing is done.
const forged = await page.request.post("/ui/reload", { form: { csrf: "0".repeat(64) } });
assert.equal(forged.status(), 403);
const foreign = await page.request.post("/ui/reload", { form: {}, headers: { origin: "http://evil.example" } });
assert.equal(foreign.status(), 403);
const cached = await page.request.get(await page.locator("link[rel=stylesheet]").getAttribute("href"));
assert.match(cached.headers()["cache-control"], /immutable/);
const kept = await page.request.get(cached.url(), { headers: { "if-none-match": cached.headers().etag } });
assert.equal(kept.status(), 304);
await end(page);
