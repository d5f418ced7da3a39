// The Tab key alone: it reaches everything that can be pressed, in order, and one sees where one is.
import { ask, assert, end, findings, pages, visit } from "./stage.mjs";

assert.equal(await ask("call", "/scb/echo/x"), 200);
const page = await visit({ viewport: { width: 1100, height: 800 } });
for (const place of pages) {
  await page.goto(place);
  await page.waitForFunction(() => document.documentElement.dataset.live === "on");
  const all = await page.evaluate(() => {
    const shown = (part) => part.checkVisibility() && !part.disabled && part.type !== "hidden";
    const parts = [...document.querySelectorAll("a[href]:not([tabindex='-1']), button, input, select, summary, [tabindex='0']")].filter(shown);
    parts.forEach((part, at) => { part.dataset.keep = String(at); });
    return parts.length;
  });
  const reached = new Set();
  for (let at = 0; at < all; at += 1) {
    await page.keyboard.press("Tab");
    const here = await page.evaluate(() => {
      const part = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(part);
      const seen = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
      return { at: part.dataset.keep, seen, html: part.outerHTML.slice(0, 100) };
    });
    assert.ok(here.seen, `${place}: no visible focus on ${here.html}`);
    reached.add(here.at);
  }
  assert.equal(reached.size, all, `${place}: ${[...reached]}`);
}
// The first stop leads past the menu.
await page.goto("/");
await page.keyboard.press("Tab");
await page.keyboard.press("Enter");
assert.equal(await page.evaluate(() => document.activeElement.id), "main");
// A slash leads to the search field, and is a letter like others there.
await page.goto("/ui/requests");
await page.keyboard.press("/");
assert.equal(await page.evaluate(() => document.activeElement.id), "q");
await page.keyboard.press("/");
assert.equal(await page.evaluate(() => document.activeElement.value), "/");
// Two keys lead to a page, but not from a field.
const typed = await page.evaluate(() => location.pathname);
await page.keyboard.type("gt");
await page.waitForTimeout(200);
assert.equal(await page.evaluate(() => location.pathname), typed);
assert.equal(await page.evaluate(() => document.activeElement.value), "/gt");
for (const [key, place] of [["o", "/"], ["t", "/ui/tokens"], ["p", "/ui/providers"], ["r", "/ui/requests"]]) {
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("g");
  await Promise.all([page.waitForURL((url) => url.pathname === place), page.keyboard.press(key)]);
  await page.waitForFunction(() => document.documentElement.dataset.live === "on");
}
// One of them alone does nothing.
await page.keyboard.press("t");
await page.waitForTimeout(200);
assert.equal(await page.evaluate(() => location.pathname), "/ui/requests");
// A question mark lists them, and Escape or the button goes back to the page.
const isOpen = () => page.evaluate(() => document.getElementById("keys").open);
await page.keyboard.press("?");
assert.ok(await isOpen());
assert.deepEqual(await findings(page), []);
await page.keyboard.press("g");
await page.keyboard.press("t");
await page.waitForTimeout(200);
assert.equal(await page.evaluate(() => location.pathname), "/ui/requests");
await page.keyboard.press("Escape");
assert.ok(!(await isOpen()));
await page.getByRole("button", { name: "Keyboard" }).click();
assert.ok(await isOpen());
await page.getByRole("button", { name: "Close" }).click();
assert.ok(!(await isOpen()));
await end(page);
