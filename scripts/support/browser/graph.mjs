// Opens a ComfyUI in Chromium, loads a workflow, runs it there, and takes the graph's picture.
//
//   node graph.mjs ADDRESS WORKFLOW.json PICTURE.png
//
// The workflow is as ComfyUI's API takes it; its nodes may have a `place` [x, y, width,
// height]. Says as JSON the kinds of the nodes, and what was complained of.

import { readFileSync } from "node:fs";
import chromium from "@sparticuz/chromium";
import { chromium as playwright } from "playwright-core";

const [address, workflow, picture] = process.argv.slice(2);
const PATIENCE = 240000;
const browser = await playwright.launch({
  args: chromium.args,
  executablePath: await chromium.executablePath(),
  headless: true,
  timeout: PATIENCE,
});
try {
  const page = await browser.newPage({ viewport: { width: 1500, height: 800 } });
  page.setDefaultTimeout(PATIENCE);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(address, { timeout: PATIENCE });
  await page.waitForFunction(() => window.app?.graph && window.LiteGraph, null, { timeout: PATIENCE });
  await page.waitForFunction(() => window.LiteGraph.registered_node_types.AutoCPUOffload);
  // What greets somebody who comes for the first time.
  await page.waitForTimeout(3000);
  await page.keyboard.press("Escape");
  const kinds = await page.evaluate(async (nodes) => {
    await window.app.extensionManager.setting.set("Comfy.Minimap.Visible", false);
    await window.app.loadApiJson(nodes, "workflow");
    for (const node of window.app.graph.nodes) {
      const place = nodes[node.id]?.place;
      if (place) [node.pos, node.size] = [place.slice(0, 2), place.slice(2)];
    }
    window.app.canvas.ds.offset = [60, 100];
    window.app.canvas.ds.scale = 1;
    window.app.canvas.setDirty(true, true);
    await window.app.queuePrompt(0);
    return window.app.graph.nodes.map((node) => node.type);
  }, JSON.parse(readFileSync(workflow, "utf8")));
  const ended = async () => Object.values(await (await fetch(`${address}/history`)).json())
    .some((one) => one.status?.completed);
  const until = Date.now() + PATIENCE;
  while (!(await ended()) && Date.now() < until) await page.waitForTimeout(1000);
  await page.waitForTimeout(8000);
  await page.screenshot({ path: picture, timeout: PATIENCE });
  console.log(JSON.stringify({ kinds, errors }));
} finally {
  await browser.close();
}
