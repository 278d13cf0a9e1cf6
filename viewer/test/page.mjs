// Uses the viewer's page as a person does: `node page.mjs PACKAGE FOLDER`. FOLDER holds avatar.safetensors, motion.json and
// broken.safetensors; what was seen is written to FOLDER/seen.json, screenshots beside it.
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { open, serve } from "./browser.mjs";

const [packageFolder, folder] = process.argv.slice(2);
const server = await serve({ "/view/": packageFolder, "/data/": folder });
const seen = {};
const address = `${server.origin}/view/index.html`;
const shown = "?src=/data/avatar.safetensors&motion=/data/motion.json";

/** Waits for the first picture and then holds everything still. */
const still = async (page) => {
  await page.waitForFunction(() => document.querySelector("ff-avatar")?.shadowRoot.querySelector(".status").textContent === "" &&
    document.querySelector("ff-avatar").info, undefined, { timeout: 60_000 });
  await page.evaluate(() => {
    window.avatar = document.querySelector("ff-avatar");
    avatar.removeAttribute("idle");
    avatar.setAttribute("look", "none");
    avatar.setAttribute("detail", "5k");
    avatar.neutral();
    window.$ = (selector) => avatar.shadowRoot.querySelector(selector);
    window.$$ = (selector) => [...avatar.shadowRoot.querySelectorAll(selector)];
  });
};
/** A fingerprint of the picture. */
const picture = async (page) => {
  const bytes = await page.evaluate(async () => [...new Uint8Array(await (await avatar.screenshot()).arrayBuffer())]);
  return createHash("sha256").update(Buffer.from(bytes)).digest("hex");
};

{
  const { page, requests, problems, close } = await open({ viewport: { width: 1280, height: 800 } });
  await page.goto(address + shown);
  await page.waitForFunction(() => document.querySelector("ff-avatar")?.info, undefined, { timeout: 60_000 });
  await page.waitForTimeout(1500);
  await page.screenshot({ path: join(folder, "desktop.png") });
  await page.setViewportSize({ width: 820, height: 620 }); // software graphics: fewer pixels are quicker
  seen.playsByItself = await page.evaluate(() => document.querySelector("ff-avatar").shadowRoot.querySelector(".clip button").title);
  await still(page);

  const neutral = await picture(page);
  seen.again = (await picture(page)) === neutral;
  const changes = async (act) => {
    await act();
    const after = await picture(page);
    return after !== neutral;
  };
  const returns = async (act) => !(await changes(act));
  const box = await page.evaluate(() => $("canvas").getBoundingClientRect().toJSON());
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const drag = async (modifier) => {
    if (modifier) await page.keyboard.down(modifier);
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x + 90, y + 30, { steps: 4 });
    await page.mouse.up();
    if (modifier) await page.keyboard.up(modifier);
  };
  const button = (label) => page.getByRole("button", { name: label, exact: true });
  const reset = () => button("Reset the view").click();

  seen.orbit = await changes(() => drag());
  await page.screenshot({ path: join(folder, "turned.png") });
  seen.reset = await returns(reset);
  seen.pan = await changes(() => drag("Shift"));
  await reset();
  await page.mouse.move(x, y);
  seen.zoom = await changes(() => page.mouse.wheel(0, -300));
  await reset();
  seen.focus = await changes(() => page.mouse.dblclick(x, y));
  await reset();
  await page.evaluate(() => $("canvas").focus());
  seen.keys = await changes(() => page.keyboard.press("ArrowLeft"));
  seen.keyReset = await returns(() => page.keyboard.press("0"));

  seen.sliders = await page.evaluate(() => $$(".slider").length);
  seen.groups = await page.evaluate(() => $$("summary").map((s) => s.firstChild.textContent));
  await page.getByRole("searchbox").fill("smile");
  seen.found = await page.evaluate(() => $$(".slider").filter((s) => !s.hidden).map((s) => s.dataset.name));
  await page.screenshot({ path: join(folder, "search.png") });
  seen.slider = await changes(() => page.getByLabel("Mouth smile left").fill("0.9"));
  seen.neutral = await returns(() => button("Neutral expression").click());
  await page.getByRole("searchbox").fill("");
  seen.random = await changes(() => button("Random expression").click());
  await page.screenshot({ path: join(folder, "random.png") });
  await button("Neutral expression").click();

  seen.setARKit = await changes(() => page.evaluate(() => void (window.unknown = avatar.setARKit({ jawOpen: 0.7, noSuch: 1 }))));
  seen.unknown = await page.evaluate(() => unknown);
  seen.arkitEnds = await returns(() => page.evaluate(() => void avatar.setARKit({})));
  seen.lookAt = await changes(async () => {
    await page.evaluate(() => avatar.lookAt([0.4, 0.2, -0.8]));
    await page.waitForTimeout(1500); // eyes move in their own time
  });
  await page.evaluate(() => avatar.lookAt(null));
  await page.waitForTimeout(1500);

  const time = () => page.evaluate(() => Number($(".clip input").value));
  await page.evaluate(() => avatar.addEventListener("ff-time", (e) => (window.lastTime = e.detail)));
  await button("Play").click();
  await page.waitForFunction(() => window.lastTime?.playing && lastTime.time > 0.8);
  await button("Pause").click();
  seen.played = await time();
  seen.event = await page.evaluate(() => lastTime);
  await page.getByLabel("Time in the clip").fill("5");
  seen.scrubbed = await time();
  await page.screenshot({ path: join(folder, "clip.png") });
  await page.evaluate(() => avatar.neutral());

  seen.detail = await page.evaluate(
    () => new Promise((done) => {
      avatar.addEventListener("ff-detail", (e) => done(e.detail), { once: true });
      avatar.setAttribute("detail", "20k");
    }),
  );
  await page.evaluate(() => avatar.setAttribute("detail", "5k"));
  const corner = () => page.evaluate(async () => {
    const bitmap = await createImageBitmap(await avatar.screenshot());
    const canvas = new OffscreenCanvas(1, 1);
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return [...context.getImageData(0, 0, 1, 1).data];
  });
  await page.evaluate(() => avatar.setAttribute("background", "#204060"));
  seen.color = await corner();
  await page.getByLabel("Transparent").check();
  seen.clear = await corner();
  await page.screenshot({ path: join(folder, "clear.png") });
  await page.evaluate(() => avatar.setAttribute("background", "#f1f2f5"));

  const download = page.waitForEvent("download");
  await button("Save a picture").click();
  seen.downloadName = (await download).suggestedFilename();
  seen.film = await page.evaluate(async () => {
    avatar.startRecording();
    await new Promise((r) => setTimeout(r, 1500));
    const film = await avatar.stopRecording();
    return { type: film.type, size: film.size, start: [...new Uint8Array(await film.slice(0, 4).arrayBuffer())] };
  });

  // every control has a name that a screen reader can say
  seen.unnamed = await page.evaluate(() => $$("button, input:not([hidden]), select, canvas, aside").filter((made) => {
    const label = made.getAttribute("aria-label") ?? made.closest("label")?.textContent ?? "";
    return !label.trim();
  }).map((made) => made.outerHTML));
  const reached = new Set();
  seen.canvasTab = await page.evaluate(() => $("canvas").tabIndex);
  for (let k = 0; k < 24; k++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => avatar.shadowRoot.activeElement?.tagName ?? "none"));
  }
  seen.reached = [...reached];

  const failsWith = (source, attributes = "") => page.evaluate(async ([source]) => {
    const error = await avatar.load(source).then(() => null, (e) => e);
    return { name: error?.name, shown: $(".message").hidden ? null : $(".message").textContent };
  }, [source, attributes]);
  seen.broken = await failsWith("/data/broken.safetensors");
  await page.screenshot({ path: join(folder, "broken.png") });
  seen.foreign = await failsWith("https://elsewhere.invalid/a.safetensors");
  seen.requestsBefore = requests.length;
  seen.problems = [...problems];
  seen.missing = await failsWith("/data/none.safetensors");
  seen.recovered = await page.evaluate(async () => {
    await avatar.load("/data/avatar.safetensors");
    return $(".message").hidden;
  });
  seen.reconnected = await page.evaluate(async () => {
    const again = new Promise((done) => addEventListener("ff-load", () => done(true), { once: true }));
    avatar.remove();
    document.body.append(avatar);
    return again;
  });
  seen.contextBack = await page.evaluate(async () => {
    const changed = new Promise((done) => avatar.addEventListener("ff-detail", () => done(true), { once: true }));
    const lose = $("canvas").getContext("webgl2").getExtension("WEBGL_lose_context");
    lose.loseContext();
    await new Promise((r) => setTimeout(r, 300));
    lose.restoreContext();
    return changed;
  });
  const colors = await page.evaluate(async () => {
    const bitmap = await createImageBitmap(await avatar.screenshot());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return new Set(new Uint32Array(context.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer)).size;
  });
  seen.contextBack &&= colors > 500;
  seen.outside = requests.filter((url) => !url.startsWith(server.origin) && !/^(blob|data):/.test(url));
  await close();
}
{
  const { page, problems, close } = await open({
    viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true,
  });
  await page.goto(address + shown);
  await still(page);
  await page.evaluate(() => avatar.screenshot());
  await page.screenshot({ path: join(folder, "phone.png") });
  seen.phone = await page.evaluate(() => ({
    overflow: document.documentElement.scrollWidth > innerWidth,
    canvas: $("canvas").getBoundingClientRect().height,
    buttons: $$(".bar button").map((b) => Math.min(b.getBoundingClientRect().width, b.getBoundingClientRect().height)),
    right: Math.max(...$$(".bar button").map((b) => b.getBoundingClientRect().right)),
    left: Math.min(...$$(".bar button").map((b) => b.getBoundingClientRect().left)),
  }));
  await page.getByRole("button", { name: "Show or hide the controls" }).tap();
  await page.evaluate(() => avatar.screenshot());
  await page.screenshot({ path: join(folder, "phone-folded.png") });
  seen.folded = await page.evaluate(() => $("canvas").getBoundingClientRect().height);
  seen.phoneProblems = problems;
  await close();
}
{
  const { page, close } = await open({ graphics: false });
  await page.goto(address + shown);
  await page.waitForFunction(() => document.querySelector("ff-avatar")?.shadowRoot?.querySelector(".message")?.hidden === false);
  seen.noGraphics = await page.evaluate(() => {
    const message = document.querySelector("ff-avatar").shadowRoot.querySelector(".message");
    return { shown: message.hidden ? null : message.textContent, role: message.getAttribute("role") };
  });
  await page.screenshot({ path: join(folder, "no-graphics.png") });
  await close();
}
server.close();
writeFileSync(join(folder, "seen.json"), JSON.stringify(seen, null, 1));
