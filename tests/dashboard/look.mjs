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
  }
}
assert.ok(admin);
await end(...visited);
