// Time from opening the page to the first picture: `node first.mjs PACKAGE FOLDER [TIMES]`, FOLDER holds avatar.safetensors.
// Prints JSON: milliseconds from the start of navigation to the event ff-load, one a new browser.
import { open, serve } from "./browser.mjs";

const [packageFolder, folder, times = "3"] = process.argv.slice(2);
const server = await serve({ "/view/": packageFolder, "/data/": folder });
const taken = [];
let version = "";
for (let k = 0; k < Number(times); k++) {
  const { page, close } = await open({ viewport: { width: 800, height: 600 } });
  await page.addInitScript(() => addEventListener("ff-load", () => (window.firstPicture = performance.now())));
  await page.goto(`${server.origin}/view/index.html?src=/data/avatar.safetensors`);
  await page.waitForFunction(() => window.firstPicture !== undefined, undefined, { timeout: 60_000 });
  taken.push(await page.evaluate(() => firstPicture));
  version = page.context().browser()?.version() ?? version;
  await close();
}
server.close();
console.log(JSON.stringify({ taken, version }));
