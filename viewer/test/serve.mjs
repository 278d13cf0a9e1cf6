// The page of `ffavatar serve` in headless Chromium against the mock server: `node serve.mjs SCENARIO MATERIAL FOLDER [PAGE VIEWER]`. MATERIAL is
// made by tests/page_material.py; what was seen is written to FOLDER/SCENARIO.json, screenshots beside it.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { open } from "./browser.mjs";
import { mockServer } from "./mock.mjs";

const [scenario, material, folder, pageFolder, viewerFolder] = process.argv.slice(2);
const built = pageFolder ? { page: pageFolder, viewer: viewerFolder } : {};
const photo = (name) => join(material, "photos", name);
const seen = {};

/** Opens the page; what it announces to screen readers is kept in `window.said`. */
async function visit(server, options = {}, path = "/") {
  const opened = await open({ viewport: { width: 1100, height: 760 }, ...options });
  await opened.page.addInitScript(() => {
    window.said = [];
    addEventListener("DOMContentLoaded", () => {
      const note = () => said.push(document.getElementById("live").textContent);
      new MutationObserver(note).observe(document.getElementById("live"), { childList: true });
    });
    document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  await opened.page.goto(server.origin + path);
  return opened;
}
const named = (page, name) => page.getByRole("button", { name, exact: true });
const agree = (page) => named(page, "I have their consent").click();
const cards = (page) =>
  page.evaluate(() => [...document.querySelectorAll(".card")].map((card) => ({
    name: card.querySelector("h3").textContent, state: card.dataset.state, text: card.textContent,
    pictures: [...card.querySelectorAll("img:not(.whole)")].map((img) => [img.alt, img.complete && img.naturalWidth]),
  })));
const checked = (page, count) =>
  page.waitForFunction((count) => document.querySelectorAll(".card").length === count && !document.querySelector(".card[data-state=busy]") &&
    [...document.querySelectorAll(".card img:not(.whole)")].every((img) => img.complete), count);
const count = (page) => page.locator("#count").textContent();
/** Waits until an avatar is shown, and makes it cheap to draw. */
const shown = async (page) => {
  await page.waitForFunction(() => document.querySelector("ff-avatar")?.info, undefined, { timeout: 90_000 });
  await page.evaluate(() => {
    window.avatar = document.querySelector("ff-avatar");
    avatar.removeAttribute("idle");
    avatar.setAttribute("look", "none");
    avatar.setAttribute("detail", "5k");
  });
};
const picture = (page) =>
  page.evaluate(async () => [...new Uint8Array(await (await avatar.screenshot()).arrayBuffer())]).then((bytes) => createHash("sha256").update(Buffer.from(bytes)).digest("hex"));
const outside = (server, requests) => requests.filter((url) => !url.startsWith(server.origin) && !/^(blob|data):/.test(url));
/** Hands files over as if they were pasted or dropped on the page. */
const hand = (page, kind, name, type) =>
  page.evaluate(([kind, name, type, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, { type }));
    const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }) : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
    return event.defaultPrevented;
  }, [kind, name, type, readFileSync(photo(name)).toString("base64")]);
const saved = async (page, act) => {
  const coming = page.waitForEvent("download");
  await act();
  const download = await coming;
  return { name: download.suggestedFilename(), data: readFileSync(await download.path()).toString("base64").slice(0, 80), size: readFileSync(await download.path()).length };
};

const scenarios = {
  /** Photos in, avatar out, refined in place, driven, downloaded, renamed, deleted. */
  async whole() {
    const server = await mockServer(material, { ...built, stepMs: 60 });
    const { page, requests, problems, close } = await visit(server);
    await page.waitForSelector(".home");
    const posts = () => requests.filter((url) => url.includes("/api/photos")).length;
    const choose = (...names) => page.getByLabel("Photo files").setInputFiles(names.map(photo));
    await choose("front.jpg");
    seen.consent = await page.locator("dialog").textContent();
    await named(page, "Cancel").click();
    await page.waitForFunction(() => !document.querySelector("dialog[open]"));
    await page.waitForTimeout(500); // until the page has the answer, which closing tells it later
    seen.uploadedWithoutConsent = posts();
    await choose("front.jpg", "landscape.jpg", "notes.jpg");
    await agree(page);
    await checked(page, 3);
    await page.getByLabel("Photo files").setInputFiles([{ name: "huge.jpg", mimeType: "image/jpeg", buffer: Buffer.alloc(3 * 2 ** 20) }]);
    await checked(page, 4);
    seen.tooLargeUploaded = posts() > 2 + 3 + 2; // checks of three photos, their two pictures
    seen.pasted = await hand(page, "paste", "left.png", "image/png");
    await checked(page, 5);
    seen.dropped = await hand(page, "drop", "right.webp", "image/webp");
    await checked(page, 6);
    seen.cards = await cards(page);
    seen.count = await count(page);
    await page.getByLabel("Photo files").setInputFiles([photo("left.png")]);
    seen.overFull = await page.locator(".photos > .problem").filter({ hasText: /left out/ }).textContent(); // said after the answer about consent
    await named(page, "Remove huge.jpg").click();
    seen.focusAfterRemove = await page.evaluate(() => document.activeElement.getAttribute("aria-label"));
    await choose("left.png");
    await page.getByText("left.png is here already.").waitFor();
    await checked(page, 5);
    await page.getByRole("checkbox", { name: /right\.webp/ }).uncheck();
    seen.countLess = await count(page);
    await page.screenshot({ path: join(folder, "photos.png"), fullPage: true });

    await page.getByLabel("Name").fill("Test person");
    await page.getByLabel("Refine it to the photos").check();
    Object.assign(server.state, { full: 1, dropAfter: 4, hold: "personalizing" });
    await named(page, "Make avatar").click();
    await page.getByText(/The server is busy with other work\. Trying again in \d/).waitFor();
    seen.stillWhileMaking = await named(page, "Choose photos").isDisabled();
    await shown(page);
    seen.keys = server.log.keys;
    seen.order = server.log.orders[0];
    seen.lastEventIds = server.log.lastEventIds;
    seen.openedBeforeEnd = ![...server.jobs.values()][0].record.finished;
    seen.focus = await page.evaluate(() => document.activeElement.tagName);
    seen.refiningTitle = await page.locator(".progress h3").textContent();
    seen.stages = await page.locator(".stages li").allTextContents();
    // what a person did before the better version comes stays
    await page.evaluate(() => avatar.shadowRoot.querySelector("canvas").focus());
    await page.keyboard.press("ArrowLeft");
    await page.getByLabel("Head turn").fill("0.3");
    const steered = () => page.evaluate(() => ({ slider: avatar.shadowRoot.querySelector("[data-name=headYaw] input").value, camera: JSON.stringify(avatar.view.camera()), values: { ...avatar.view.values } }));
    const [before, seenBefore] = [await steered(), await picture(page)];
    await page.screenshot({ path: join(folder, "refining.png") });
    const updated = page.evaluate(() => new Promise((done) => {
      const versions = [];
      avatar.addEventListener("ff-update", () => versions.push(1));
      const look = () => (document.querySelector(".progress") ? setTimeout(look, 50) : setTimeout(() => done(versions.length), 1500));
      look();
    }));
    server.state.hold = "";
    seen.updates = await updated;
    seen.kept = JSON.stringify(await steered()) === JSON.stringify(before);
    seen.refined = (await picture(page)) !== seenBefore;
    seen.meta = await page.locator(".studio .head .hint").textContent();
    seen.title = await page.title();
    await page.evaluate(() => avatar.neutral());

    // driven by a film
    const film = page.getByLabel("Film file");
    await film.setInputFiles([photo("front.jpg")]);
    seen.badFilm = await page.locator(".film .problem").filter({ hasText: /./ }).textContent();
    await film.setInputFiles([{ name: "long.mp4", mimeType: "video/mp4", buffer: Buffer.alloc(6 * 2 ** 20) }]);
    seen.largeFilm = await page.locator(".film .problem").filter({ hasText: /This film has/ }).textContent();
    await page.getByLabel("The film shows the same person").check();
    await film.setInputFiles([join(material, "film.mp4")]);
    await page.getByText("The avatar plays the film's movement.").first().waitFor();
    seen.driveOrder = server.log.orders.find(({ kind }) => kind === "drive");
    seen.clip = await page.evaluate(() => new Promise((done) => avatar.addEventListener("ff-time", ({ detail }) => detail.playing && detail.time > 0.1 && done(detail.duration))));
    await page.screenshot({ path: join(folder, "driven.png") });
    seen.mp4 = await saved(page, () => page.getByRole("link", { name: "Film of the avatar (mp4)" }).click());
    seen.mp4Expected = readFileSync(join(material, "film.mp4")).toString("base64").slice(0, 80);
    await named(page, "Stop the movement").click();
    await page.waitForFunction(() => avatar.shadowRoot.querySelector(".clip").hidden);
    seen.clipGone = await page.evaluate(() => avatar.shadowRoot.querySelector(".clip").hidden);
    seen.filmForgotten = server.log.deleted.length > 0;

    // files
    seen.container = await saved(page, () => page.getByRole("link", { name: /^Avatar file/ }).click());
    seen.containerSize = readFileSync(join(material, "avatar-3.safetensors")).length;
    seen.ply = await saved(page, () => page.getByRole("button", { name: /\.ply/ }).click());
    seen.plyAgain = await saved(page, () => page.getByRole("link", { name: /\.ply/ }).click());
    server.state.failWith = "There is no room left on the disk; delete avatars.";
    await page.getByRole("button", { name: /^Rigged mesh/ }).click();
    await page.getByText("There is no room left on the disk").first().waitFor();
    server.state.failWith = "";
    seen.glb = await saved(page, () => page.getByRole("button", { name: /^Rigged mesh/ }).click());
    seen.html = await saved(page, () => page.getByRole("button", { name: /^Web page/ }).click());
    seen.exports = server.log.orders.filter(({ kind }) => kind === "export").map(({ format }) => format);

    // names and the end
    await named(page, "Rename").click();
    await page.getByLabel("Name of the avatar").fill("Other name");
    await named(page, "Save").click();
    await page.getByRole("heading", { name: "Other name" }).waitFor();
    await page.getByRole("link", { name: "Your avatars" }).click();
    await page.getByRole("link", { name: "Other name" }).waitFor();
    seen.historyFocus = await page.evaluate(() => document.activeElement.textContent);
    await named(page, "Delete Other name").click();
    await named(page, "Keep it").click();
    seen.keptAvatars = server.avatars.size;
    await named(page, "Delete Other name").click();
    await named(page, "Delete").click();
    await page.getByText("No avatars yet.").waitFor();
    seen.avatarsLeft = server.avatars.size;
    seen.said = await page.evaluate(() => said.filter(Boolean));
    seen.outside = outside(server, requests);
    seen.requests = requests.length;
    seen.problems = problems.filter((problem) => !/status of (503|422)|INCOMPLETE_CHUNKED/.test(problem)); // the browser's own notes of refusals and of the cut stream
    await close();
    await server.close();
  },

  /** Photos of different days: one of them may be chosen for its hair and clothes. */
  async looks() {
    const server = await mockServer(material, { ...built, stepMs: 60 });
    const { page, problems, close } = await visit(server);
    const look = (name) => named(page, `Hair and clothes from ${name}`);
    const use = (name) => page.getByRole("checkbox", { name: new RegExp(name) });
    /** What is said above the photos, and of each card's button whether it is pressed; null where there is none to see. */
    const state = () => page.evaluate(() => ({
      asked: [...document.querySelectorAll(".photos > .hint")].some((line) => line.checkVisibility() && line.textContent.startsWith("Photos of different days?")),
      pressed: Object.fromEntries([...document.querySelectorAll(".card")].map((card) => {
        const made = card.querySelector("button.look");
        return [card.querySelector("h3").textContent, made?.checkVisibility() ? made.ariaPressed : null];
      })),
    }));
    await page.getByLabel("Photo files").setInputFiles([photo("front.jpg"), photo("landscape.jpg")]);
    await agree(page);
    await checked(page, 2);
    seen.one = await state();
    await page.getByLabel("Photo files").setInputFiles([photo("left.png"), photo("right.webp")]);
    await checked(page, 4);
    seen.three = await state();
    await look("front.jpg").click();
    seen.front = await state();
    await look("left.png").click();
    seen.left = await state();
    await look("left.png").click();
    seen.none = await state();
    await look("right.webp").focus();
    await page.keyboard.press("Space");
    seen.byKey = await state();
    await use("right.webp").uncheck();
    seen.leftOut = await state();
    await look("left.png").focus();
    await page.keyboard.press("Enter");
    await use("front.jpg").uncheck();
    seen.single = await state();
    await use("front.jpg").check();
    await use("right.webp").check();
    seen.again = await state();
    await look("left.png").click();
    await page.screenshot({ path: join(folder, "looks.png"), fullPage: true });
    await named(page, "Make avatar").click();
    await shown(page);
    await page.locator(".notes").getByText("Hair and clothes are those of left.png").waitFor();
    seen.note = await page.locator(".notes li").allTextContents();
    await page.screenshot({ path: join(folder, "looks-note.png") });
    seen.order = server.log.orders[0];
    seen.said = await page.evaluate(() => said.filter(Boolean));

    // a photo that is removed takes its choice with it
    await page.getByRole("link", { name: "New avatar" }).click();
    await named(page, "Remove left.png").click();
    seen.removed = await state();
    seen.focus = await page.evaluate(() => document.activeElement.ariaLabel);
    await named(page, "Make avatar").click();
    await page.locator("ff-avatar").waitFor();
    seen.plain = server.log.orders[1];
    seen.problems = problems;
    await close();
    await server.close();
  },

  /** A job stopped in time; one that goes on while the page is loaded anew; one that fails. */
  async stopping() {
    const server = await mockServer(material, { ...built, stepMs: 150 });
    const { page, problems, close } = await visit(server);
    await page.getByLabel("Photo files").setInputFiles([photo("front.jpg")]);
    await agree(page);
    await checked(page, 1);
    server.state.hold = "reconstructing";
    await named(page, "Make avatar").click();
    await page.locator(".stages").getByText("Building the avatar").waitFor();
    seen.progressFocused = await page.evaluate(() => document.activeElement.classList.contains("progress"));
    await named(page, "Cancel").click();
    await named(page, "Make avatar").waitFor();
    seen.cancelled = [...server.jobs.values()].map(({ record }) => record.state);
    seen.avatars = server.avatars.size;
    seen.photosKept = await count(page);

    server.state.full = 99;
    await named(page, "Make avatar").click();
    await page.getByText("The server is busy with other work").waitFor();
    await named(page, "Cancel").click();
    await named(page, "Make avatar").waitFor();
    server.state.full = 0;
    seen.jobsAfterBusyCancel = server.jobs.size;

    await named(page, "Make avatar").click();
    await page.locator(".stages").getByText("Building the avatar").waitFor();
    await page.reload();
    await page.locator(".stages").getByText("Building the avatar").waitFor();
    seen.resumed = await page.locator(".progress h3").textContent();
    server.state.failWith = "The photos show different people; leave one out.";
    await page.locator(".alert").getByText("The photos show different people").waitFor();
    seen.failed = await page.getByRole("alert").first().textContent();
    // a refinement that is stopped: the page says so at once, and when it is opened again
    Object.assign(server.state, { failWith: "", hold: "personalizing" });
    const half = await visit(server);
    await half.page.getByLabel("Photo files").setInputFiles([photo("left.png")]);
    await agree(half.page);
    await checked(half.page, 1);
    await half.page.getByLabel("Refine it to the photos").check();
    await named(half.page, "Make avatar").click();
    await half.page.waitForFunction(() => document.querySelector("ff-avatar")?.info, undefined, { timeout: 90_000 });
    // a computer that refines draws slowly; what it draws by itself is measured anew afterwards
    const tooSlow = () => half.page.evaluate(() => Object.assign(document.querySelector("ff-avatar").view.governor, { level: 0, ceiling: 0, worked: true }).ceiling);
    seen.ceilingWhileRefining = await tooSlow();
    await named(half.page, "Stop refining").click();
    await half.page.locator(".notes").getByText("Its refinement was stopped").waitFor();
    await half.page.getByRole("button", { name: "Refine now" }).waitFor();
    seen.measuredAnew = await half.page.evaluate(() => !document.querySelector("ff-avatar").view.governor.worked);
    await shown(half.page);
    await half.page.screenshot({ path: join(folder, "stopped.png") });
    await half.page.reload();
    await half.page.locator(".notes").getByText("Its refinement was stopped").waitFor();
    seen.stoppedNotes = await half.page.locator(".notes li").allTextContents();
    await half.close();
    seen.problems = problems.filter((problem) => !/status of 503/.test(problem));
    await close();
    await server.close();
  },

  /** The server goes away during a job and comes back. */
  async away() {
    const server = await mockServer(material, { ...built, stepMs: 100 });
    const seeded = server.seed("Seeded");
    const { page, close } = await visit(server);
    await page.getByLabel("Photo files").setInputFiles([photo("front.jpg")]);
    await agree(page);
    await checked(page, 1);
    server.state.hold = "reconstructing";
    await named(page, "Make avatar").click();
    await page.locator(".stages").getByText("Building the avatar").waitFor();
    await server.goAway();
    await page.locator(".progress").getByText("The connection is lost.").waitFor();
    await page.screenshot({ path: join(folder, "away.png") });
    await page.getByRole("link", { name: "Your avatars" }).click();
    await page.locator(".alert").getByText("The server does not answer").waitFor();
    seen.offline = await page.locator(".alert").textContent();
    await page.evaluate((id) => (location.hash = `#/avatar/${id}`), seeded);
    await page.getByRole("heading", { name: "No answer" }).waitFor();
    await server.comeBack();
    await page.getByRole("heading", { name: "Seeded" }).waitFor({ timeout: 30_000 });
    seen.openedWhenBack = await page.evaluate(() => document.querySelector("ff-avatar") !== null);
    await page.getByRole("link", { name: "New avatar" }).click();
    await page.waitForFunction(() => !document.querySelector(".alert") && document.querySelector(".progress .lost")?.hidden, undefined, { timeout: 30_000 });
    seen.lastEventIds = server.log.lastEventIds;
    server.state.hold = "";
    await shown(page);
    seen.finished = [...server.jobs.values()].map(({ record }) => record.state);
    await close();

    // a server that has no room for photos just now, and a photo of two people
    server.state.fullPhotos = 2;
    const two = await visit(server);
    await two.page.getByLabel("Photo files").setInputFiles([photo("pair.jpg")]);
    await agree(two.page);
    await checked(two.page, 1);
    seen.uploadsRefused = 2 - server.state.fullPhotos;
    seen.pair = (await cards(two.page))[0].text;
    const crop = () => two.page.evaluate(() => document.querySelector(".card img").src);
    const first = await crop();
    await two.page.getByRole("button", { name: /^Use another face/ }).click();
    await two.page.getByText("this is 2 of 2").waitFor();
    seen.otherFace = (await crop()) !== first;
    seen.faceForgotten = server.log.deleted.length;
    await two.page.screenshot({ path: join(folder, "pair.png") });
    await two.close();

    // nobody is there when the page is reloaded from the browser's cache: it waits
    const later = await open({ viewport: { width: 1100, height: 760 } });
    let answers = false;
    await later.page.route("**/api/about", (route) => (answers ? route.continue() : route.abort("connectionrefused")));
    await later.page.goto(server.origin);
    await later.page.getByText("Waiting for the server").waitFor();
    answers = true;
    await later.page.locator(".home").waitFor();
    seen.startedLate = true;
    await later.close();
    await server.close();
  },

  /** A server with a token. */
  async token() {
    const token = "a-token-of-some-length";
    const server = await mockServer(material, { ...built, token, stepMs: 50 });
    server.seed("Seeded");
    {
      const { page, problems, close } = await visit(server, {}, `/#token=${token}`);
      await page.locator(".avatar").waitFor();
      await page.waitForFunction(() => [...document.querySelectorAll(".avatar img")].every((img) => img.complete));
      seen.hash = await page.evaluate(() => location.hash);
      seen.picture = await page.evaluate(() => document.querySelector(".avatar img").naturalWidth);
      await page.getByLabel("Photo files").setInputFiles([photo("front.jpg")]);
      await agree(page);
      await checked(page, 1);
      await named(page, "Make avatar").click();
      await shown(page); // events came by the cookie
      await page.reload();
      await page.getByRole("heading", { level: 1 }).waitFor();
      seen.keptInTab = await page.locator("dialog").count();
      seen.problems = problems;
      await close();
    }
    {
      const { page, close } = await visit(server);
      await page.getByText("This server asks for a token.").first().waitFor();
      await page.getByRole("textbox", { name: "Token" }).fill("a wrong one");
      await named(page, "Continue").click();
      await page.getByText("The token was not accepted.").first().waitFor();
      await page.screenshot({ path: join(folder, "token.png") });
      await page.getByRole("textbox", { name: "Token" }).fill(token);
      await named(page, "Continue").click();
      await page.locator(".home").waitFor();
      seen.signedIn = true;
      await close();
    }
    await server.close();
  },

  /** From the first page to a turned avatar and a file, by keys alone. */
  async keyboard() {
    const server = await mockServer(material, { ...built, stepMs: 50 });
    const { page, problems, close } = await visit(server);
    const chooser = page.waitForEvent("filechooser", { timeout: 60_000 }); // listening takes a moment to begin
    await page.waitForSelector(".home");
    const focused = () => page.evaluate(() => {
      let at = document.activeElement;
      while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
      return (at?.getAttribute("aria-label") ?? at?.closest("label")?.textContent ?? at?.textContent ?? "").trim();
    });
    const to = async (name, key = "Tab") => {
      for (let k = 0; k < 60; k++) {
        await page.keyboard.press(key);
        if ((await focused()).startsWith(name)) return k + 1;
      }
      throw new Error(`${name} was not reached; at ${await focused()}`);
    };
    await page.keyboard.press("Tab");
    seen.first = await focused();
    await page.keyboard.press("Enter");
    seen.skipped = await page.evaluate(() => [document.activeElement.id, location.hash, document.querySelector(".home") !== null]);
    await to("Choose photos");
    await page.keyboard.press("Enter");
    await (await chooser).setFiles([photo("front.jpg"), photo("left.png")]);
    await page.waitForSelector("dialog[open]");
    await to("I have their consent");
    await page.keyboard.press("Enter");
    await checked(page, 2);
    await to("Used left.png");
    await page.keyboard.press("Space");
    seen.count = await count(page);
    await to("Make avatar");
    await page.keyboard.press("Enter");
    await shown(page);
    seen.heading = await page.evaluate(() => document.activeElement.tagName);
    await to("Avatar ");
    const before = await picture(page);
    await page.keyboard.press("ArrowLeft");
    seen.turned = (await picture(page)) !== before;
    await to("Rigged mesh");
    const coming = page.waitForEvent("download");
    await page.keyboard.press("Enter");
    seen.download = (await coming).suggestedFilename();
    seen.focusKept = await focused();
    await to("Delete avatar");
    await page.keyboard.press("Enter");
    await page.waitForSelector("dialog[open]");
    await page.keyboard.press("Escape");
    seen.escaped = server.avatars.size;
    seen.focusBack = await focused();
    // every control has a name, every picture a text
    seen.unnamed = await page.evaluate(() => [...document.querySelectorAll("button, a, input, select, progress, img")].filter((made) => {
      const label = made.getAttribute("aria-label") ?? made.getAttribute("alt") ?? made.closest("label")?.textContent ?? made.textContent;
      return made.tagName === "IMG" ? !made.hasAttribute("alt") : !label.trim();
    }).map((made) => made.outerHTML));
    seen.problems = problems;
    await close();
    await server.close();
  },

  /** A small phone: nothing sticks out, everything can be touched. */
  async phone() {
    const server = await mockServer(material, { ...built, stepMs: 50 });
    server.seed("A rather long name of an avatar that does not fit into one line");
    const { page, problems, close } = await visit(server, { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
    const check = async (name) => {
      seen[name] = await page.evaluate(() => ({
        overflow: document.documentElement.scrollWidth - innerWidth,
        small: [...document.querySelectorAll("button, .top a, summary, a.item, label.option")].filter((made) => made.checkVisibility() && Math.min(made.getBoundingClientRect().height, made.getBoundingClientRect().width) < 40).map((made) => made.textContent || made.ariaLabel),
      }));
      await page.screenshot({ path: join(folder, `phone-${name}.png`), fullPage: true });
    };
    await page.locator(".avatar").first().waitFor();
    await check("home");
    await page.getByLabel("Photo files").setInputFiles([photo("front.jpg"), photo("landscape.jpg"), photo("left.png")]);
    await page.waitForSelector("dialog[open]");
    await check("consent");
    const dialogHead = () => page.evaluate(() => {
      const heading = document.querySelector("dialog h2");
      const { top, bottom } = heading.getBoundingClientRect();
      return document.activeElement === heading && top >= 0 && bottom <= innerHeight;
    });
    seen.consentFromItsBeginning = await dialogHead();
    await named(page, "I have their consent").tap();
    await checked(page, 3);
    await named(page, "Hair and clothes from left.png").tap();
    await check("photos");
    seen.drawings = await page.evaluate(() => [...document.querySelectorAll("button.look path")].map((path) => path.getBoundingClientRect().width).filter(Boolean));
    await named(page, "Make avatar").tap();
    await shown(page);
    seen.folded = await page.evaluate(() => avatar.hasAttribute("data-folded"));
    await page.evaluate(() => avatar.screenshot());
    await check("studio");
    await page.getByRole("link", { name: "Your avatars" }).tap();
    await page.locator(".history h1").waitFor();
    await page.locator(".avatar").first().waitFor();
    await check("history");
    await page.getByRole("button", { name: /^Delete A rather long name/ }).tap();
    await page.waitForSelector("dialog[open]");
    await check("delete");
    seen.deleteFromItsBeginning = await dialogHead();
    seen.deleteNames = await page.locator("dialog .which").textContent();
    await named(page, "Keep it").tap();

    // a server that cannot read HEIC does not ask phones for it
    const accepted = () => page.getByLabel("Photo files").getAttribute("accept");
    await page.getByRole("link", { name: "New avatar" }).tap();
    seen.accepted = [await accepted()];
    server.state.heic = false;
    await page.reload();
    await page.locator(".home").waitFor();
    seen.accepted.push(await accepted());
    seen.problems = problems;
    await close();
    await server.close();
  },

  /** The device's camera, for photos and for driving; FOLDER holds camera.y4m and the folder vision. */
  async camera() {
    const server = await mockServer(material, { ...built, vision: join(folder, "vision"), stepMs: 50 });
    server.seed("Seeded");
    const film = [`--use-file-for-fake-video-capture=${join(folder, "camera.y4m")}`, "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];
    const { page, requests, problems, close } = await visit(server, { permissions: ["camera"], extra: film });
    await named(page, "Use the camera").click();
    await agree(page);
    await page.waitForFunction(() => document.querySelector("dialog video")?.videoWidth > 0);
    await named(page, "Take photo").click();
    await page.getByText("Turn your head a little to the left.").first().waitFor();
    await page.screenshot({ path: join(folder, "shoot.png") });
    seen.light = await page.evaluate(() => document.querySelector("dialog video").srcObject.active);
    const track = await page.evaluateHandle(() => document.querySelector("dialog video").srcObject.getTracks()[0]);
    await named(page, "Done").click();
    await page.waitForFunction(({ readyState }) => readyState === "ended", track); // a dialog's close event comes a task later
    seen.cameraOff = await track.evaluate(({ readyState }) => readyState);
    await checked(page, 1);
    seen.shot = (await cards(page))[0].name;

    await page.locator(".avatar a").click();
    await shown(page);
    seen.askedBefore = requests.some((url) => url.includes("/webcam/"));
    await page.evaluate(() => {
      window.readings = [];
      avatar.addEventListener("ff-webcam", ({ detail }) => readings.push(detail));
    });
    await named(page, "Use your webcam").click();
    seen.focus = await page.evaluate(() => avatar.shadowRoot.activeElement?.textContent);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => readings.filter((reading) => "jawOpen" in reading).length > 5, undefined, { timeout: 300_000 });
    await page.screenshot({ path: join(folder, "webcam.png") });
    await named(page, "Stop the camera").click();
    seen.readings = await page.evaluate(() => readings.length);
    seen.outside = outside(server, requests);
    seen.problems = problems.filter((problem) => !/INFO:|XNNPACK/.test(problem)); // the tracker's own notes
    await close();
    await server.close();

    // where the files are not there, the page says so
    const without = await mockServer(material, { ...built, stepMs: 50 });
    without.seed("Seeded");
    const other = await visit(without);
    await other.page.locator(".avatar a").click();
    await shown(other.page);
    seen.buttonWithout = await named(other.page, "Use your webcam").count();
    seen.explained = await other.page.locator(".moving details").textContent();
    seen.sectionWithout = await other.page.evaluate(() => avatar.shadowRoot.querySelector(".webcam") !== null);
    await other.close();
    await without.close();
  },
};

await scenarios[scenario]();
writeFileSync(join(folder, `${scenario}.json`), JSON.stringify(seen, null, 1));
