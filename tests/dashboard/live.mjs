// What happens is seen without loading a page anew.
import { admin, ask, assert, end, findings, jsqr, picture, visit } from "./stage.mjs";

const page = await visit({ viewport: { width: 1280, height: 900 } });

// Nothing yet.
await page.goto("/ui/tokens");
await page.getByText("No token was needed yet").waitFor();
await page.evaluate(() => { globalThis.untouched = true; });

// A call: its token's life is there.
assert.equal(await ask("call", "/scb/echo/x"), 200);
const token = page.locator(".token").filter({ hasText: "scb" });
await token.locator(".timeline .now").waitFor({ state: "attached" });
const generation = () => token.locator("dt:text-is('Generation') + dd").textContent();
assert.equal(await generation(), "1");
const before = await token.locator("dl.ends time").first().getAttribute("datetime");

// The bank revokes it: the next call is sent again, and the bar begins anew.
await ask("revoke");
assert.equal(await ask("call", "/scb/echo/x"), 200);
await token.locator("dd:text-is('2')").first().waitFor();
assert.equal(await generation(), "2");
assert.notEqual(await token.locator("dl.ends time").first().getAttribute("datetime"), before);

// Buttons: the focus stays on them while the page changes under it.
await token.getByRole("button", { name: "Refresh" }).focus();
await page.waitForTimeout(1500);
assert.match(await page.evaluate(() => document.activeElement.textContent), /^Refresh/);
assert.equal(await page.evaluate(() => globalThis.untouched), true, "it was never loaded anew");
await page.keyboard.press("Enter");
await page.getByRole("status").filter({ hasText: "A new token was asked for" }).waitFor();
await token.locator("dd:text-is('3')").first().waitFor();
await token.getByRole("button", { name: "Purge" }).click();
await page.getByRole("status").filter({ hasText: "forgotten" }).waitFor();
await token.getByText("There is no token now").waitFor();

// Requests: by filter, and paused.
await page.goto("/ui/requests");
const hostile = "/nowhere/'\"{&lt;script&gt;}/\u202egnp.exe";
assert.equal(await ask("call", hostile), 400);
assert.equal(await ask("call", "/nowhere"), 404);
await page.locator("tr", { hasText: "/nowhere" }).getByText("client’s error").or(page.getByText("client's error")).first().waitFor();
await page.locator(".path", { hasText: "gnp.exe" }).waitFor();
assert.equal(await page.locator(".path", { hasText: "gnp.exe" }).textContent(), hostile);
await page.locator("tr", { hasText: "/scb/echo/x" }).getByText("sent again with a new token").waitFor();
await page.getByLabel("Find").fill("nowhere");
await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 2);
assert.match(page.url(), /q=nowhere/);
await page.getByLabel("Find").fill("");
await page.waitForFunction(() => document.querySelectorAll("tbody tr").length > 3);
await page.getByRole("button", { name: "Pause" }).click();
assert.equal(await ask("call", "/scb/echo/while-paused"), 200);
await page.waitForTimeout(1500);
assert.equal(await page.getByText("while-paused").count(), 0);
await page.getByRole("button", { name: "Pause" }).click();
await page.getByText("while-paused").waitFor();
await page.goto("/ui/requests?q=%3Cscript%3Ealert(2)%3C%2Fscript%3E%22%20onfocus%3D%22x");
assert.equal(await page.getByLabel("Find").inputValue(), "<script>alert(2)</script>\" onfocus=\"x");

// The overview counts.
await page.goto("/");
await page.locator(".bars.tall rect").first().waitFor({ state: "attached" });
await page.locator(".blame .client .number", { hasText: /^2/ }).waitFor();

// A config that is wrong stays in sight until a right one is there.
await ask("spoil");
await page.getByRole("button", { name: "Reload the config" }).click();
const refused = page.getByRole("alert").filter({ hasText: "The config was not taken" });
await refused.getByText("noway").waitFor();
await picture(page, "refused-reload");
assert.deepEqual(await findings(page), []);
await page.goto("/ui/routes");
await refused.waitFor();
await page.evaluate(() => { globalThis.untouched = true; });
await ask("mend");
await refused.waitFor({ state: "detached" });
assert.equal(await page.evaluate(() => globalThis.untouched), true);

// A consent: started here, its code leads where it should, and it is seen when it is given.
await page.goto("/ui/consents");
const user = "<b>Zoë</b> \u202egnp.exe";
await page.getByLabel("User").fill(user);
await page.getByRole("button", { name: "Start" }).click();
const begun = page.locator(".begun");
await begun.getByText("Waits for the user").waitFor();
const url = await begun.locator(".url").textContent();
const shot = (await begun.locator(".qr").screenshot()).toString("base64");
const pixels = await page.evaluate(async (shot) => {
  const image = new Image();
  image.src = `data:image/png;base64,${shot}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  return { width: image.width, height: image.height, data: [...pen.getImageData(0, 0, image.width, image.height).data] };
}, shot);
assert.equal(jsqr(Uint8ClampedArray.from(pixels.data), pixels.width, pixels.height)?.data, url);
const left = () => begun.locator(".countdown .figure").textContent();
const first = await left();
await page.waitForTimeout(1600);
assert.notEqual(await left(), first, "it counts down");
await picture(page, "consent-begun");
assert.deepEqual(await findings(page), []);
assert.equal(await ask("agree", url, user), 200);
await begun.locator(".pill", { hasText: "Given" }).waitFor();
const row = page.locator("tbody tr").filter({ hasText: "Zoë" });
assert.equal(await row.locator("bdi").textContent(), user);
assert.equal(await page.locator("tbody b").count(), 0);
await row.getByRole("button", { name: "Revoke" }).click();
await page.getByText("No user has consented yet").waitFor();

// The process ends, and another one comes: the page says so, and is loaded anew.
await page.goto("/ui/tokens");
await page.waitForFunction(() => document.documentElement.dataset.live === "on");
await page.evaluate(() => { globalThis.untouched = true; });
await ask("stop");
await page.getByRole("status").filter({ hasText: "Connection lost, trying again" }).waitFor();
assert.ok(await page.getByRole("heading", { name: "Tokens" }).isVisible(), "what was known stays in sight");
await ask("start", new URL(admin).host);
await page.waitForFunction(() => !globalThis.untouched && document.documentElement.dataset.live === "on");
await page.getByRole("status").filter({ hasText: "Live" }).waitFor();
await end(page);
