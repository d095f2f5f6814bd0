// Opens a page in Chromium, takes its picture, and says as JSON what is there.
//
//   node look.mjs PAGE.html PICTURE.png

import chromium from "@sparticuz/chromium";
import { chromium as playwright } from "playwright-core";
import { pathToFileURL } from "node:url";

const [page_file, picture] = process.argv.slice(2);
const browser = await playwright.launch({
  args: chromium.args,
  executablePath: await chromium.executablePath(),
  headless: true,
  timeout: 120000,
});
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 900 } });
  const complaints = [], requests = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => requests.push(decodeURI(request.url())));
  await page.goto(pathToFileURL(page_file).href, { timeout: 120000 });
  const seen = await page.evaluate(() => ({
    charts: document.querySelectorAll("svg[role=img]").length,
    headings: [...document.querySelectorAll("h2")].map((one) => one.textContent),
    patterns: [...document.querySelectorAll("svg")].map((svg) =>
      [...svg.querySelectorAll("pattern")].map((one) => one.innerHTML)),
    widest: document.documentElement.scrollWidth,
    window: window.innerWidth,
  }));
  await page.screenshot({ path: picture, fullPage: true, timeout: 120000 });
  console.log(JSON.stringify({ ...seen, complaints, requests }));
} finally {
  await browser.close();
}
