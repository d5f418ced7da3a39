// Every page in light and dark, wide and narrow: no serious finding of axe-core, nothing to scroll sideways.
import { admin, ask, assert, end, findings, pages, picture, visit } from "./stage.mjs";

await ask("traffic");
const visited = [];
for (const colorScheme of ["light", "dark"]) {
  for (const [size, viewport] of [["wide", { width: 1280, height: 900 }], ["narrow", { width: 360, height: 740 }]]) {
    const page = await visit({ colorScheme, viewport });
    visited.push(page);
    for (const place of pages) {
      await page.goto(place);
      await page.waitForFunction(() => document.documentElement.dataset.live === "on");
      const name = place.split("/").pop() || "overview";
      await picture(page, `${name}-${colorScheme}-${size}`);
      const sideways = await page.evaluate(() => {
        const root = document.documentElement;
        const wide = [...document.querySelectorAll("body *")].filter((part) => part.getBoundingClientRect().right > innerWidth + 1);
        return root.scrollWidth > innerWidth ? wide.map((part) => part.outerHTML.slice(0, 120)) : [];
      });
      assert.deepEqual(sideways, [], `${place} at ${viewport.width} px`);
      assert.deepEqual(await findings(page), [], `${place}, ${colorScheme}, ${size}`);
    }
    // One request, and what a filter that cannot be read says.
    for (const [place, name] of [["/ui/requests?only=errors", "request"], ["/ui/requests?status=x", "mistaken"]]) {
      await page.goto(place);
      if (name === "request") {
        await page.locator("tbody a[href^='/ui/requests/']").first().click();
        await page.getByRole("heading", { name: "What is known of it" }).waitFor();
      }
      await picture(page, `${name}-${colorScheme}-${size}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}, ${size}`);
      assert.deepEqual(await findings(page), [], `${name}, ${colorScheme}, ${size}`);
    }
  }
}
assert.ok(admin);
// At a usual width no name of the tokens' table is broken into two lines.
for (const user of ["a", "b"]) await ask("call-as", "/scb-users/echo/x", user);
const wide = await visit({ viewport: { width: 1440, height: 900 } });
visited.push(wide);
await wide.goto("/ui/tokens");
await wide.waitForFunction(() => document.documentElement.dataset.live === "on");
await picture(wide, "tokens-1440");
const broken = await wide.evaluate(() => {
  const names = [...document.querySelectorAll(".tokens tbody th a, .tokens tbody th code, .tokens .pill")];
  return names.filter((name) => name.getClientRects().length > 1).map((name) => name.textContent);
});
assert.deepEqual(broken, []);
await end(...visited);
