// Where the config has tokens: a login, a session, and what each role may press.
import { ask, assert, end, findings, picture, visit } from "./stage.mjs";

const page = await visit();
await page.goto("/ui/tokens");
assert.match(page.url(), /\/ui\/login$/);
assert.deepEqual(await findings(page), []);
await picture(page, "login");
await page.getByLabel("Token").fill("wrong");
await page.getByRole("button", { name: "Log in" }).click();
await page.getByRole("alert").filter({ hasText: "not the value" }).waitFor();
assert.equal((await page.request.get("/ui/live?page=/")).status(), 401);

async function enter(token) {
  await page.goto("/ui/login");
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

// Who may look.
await enter("only-for-reading-0001");
const [cookie] = await page.context().cookies();
assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.value.includes("reading")], [true, "Strict", false]);
await ask("call", "/scb/echo/x");
await page.goto("/ui/tokens");
await page.locator(".token .timeline").first().waitFor({ state: "attached" });
assert.equal(await page.locator("main button").count(), 0);
const csrf = await page.locator("form[action='/ui/logout'] input").getAttribute("value");
const refused = await page.request.post("/ui/reload", { form: { csrf } });
assert.equal(refused.status(), 403);
assert.match(await refused.text(), /may only look/);
await page.getByRole("button", { name: /Log out/ }).click();
await page.getByRole("heading", { name: "Log in" }).waitFor();
await page.goto("/");
assert.match(page.url(), /\/ui\/login$/);

// Who may press.
await enter("for-everything-00001");
await page.goto("/ui/tokens");
await page.getByRole("button", { name: "Refresh" }).first().click();
await page.getByText("A new token was asked for").waitFor();

// The token leaves the config: so does who came with it.
await page.goto("/ui/tokens");
await page.waitForFunction(() => document.documentElement.dataset.live === "on");
await ask("withdraw");
await page.waitForURL(/\/ui\/login$/, { timeout: 20000 });
await end(page);
