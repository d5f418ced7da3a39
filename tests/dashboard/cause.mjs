// From an alarm to its cause: links alone, and two clicks at most. With a script and without.
import { assert, end, findings, picture, visit } from "./stage.mjs";

const { name, start, clicks, cause } = JSON.parse(process.env.DASHBOARD_WORDS);
assert.ok(clicks.length <= 2, "two clicks at most");
const visited = [];
for (const javaScriptEnabled of [true, false]) {
  const page = await visit({ javaScriptEnabled, viewport: { width: 1280, height: 900 } });
  visited.push(page);
  await page.goto(start);
  for (const link of clicks) await page.locator("main").getByRole("link", { name: new RegExp(link, "i") }).first().click();
  const told = page.locator("main").getByText(new RegExp(cause, "i")).first();
  await told.waitFor().catch(async () => assert.fail(`${page.url()}: ${await page.locator("main").innerText()}`));
  assert.ok(await told.isVisible());
  if (javaScriptEnabled) {
    await picture(page, `cause-${name}`);
    assert.deepEqual(await findings(page), []);
    // Where there is a runbook, it is the next link.
    const runbook = page.locator("main").getByRole("link", { name: /^(runbook|what to do)/i }).first();
    if (await runbook.count() > 0) {
      await runbook.click();
      assert.match(page.url(), /\/ui\/runbooks\//);
      await page.getByRole("heading", { level: 1 }).waitFor();
      assert.deepEqual(await findings(page), []);
      await picture(page, `runbook-${name}`);
    }
  }
}
await end(...visited);
