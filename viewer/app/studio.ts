/** One avatar: looked at, moved, refined, downloaded. */

import type { FFAvatarElement } from "../src/index.js";
import type { About, Api, Avatar, AvatarNews, JobOrder } from "./api.js";
import { alertBar, button, bytesText, dateText, hideAlert, icon, iconButton, make, notesList } from "./dom.js";
import { FilmDrive } from "./drive.js";
import { remove, rename } from "./history.js";
import { Downloads } from "./downloads.js";
import type { Maker } from "./maker.js";

const BACKGROUNDS = { light: "#eeeeec", dark: "#232529" };
const NARROW_PX = 900;

export class Studio {
  readonly root = make("div", { class: "studio" });
  readonly viewer: FFAvatarElement = document.createElement("ff-avatar") as FFAvatarElement;
  private readonly title = make("h1", { tabindex: "-1" });
  private readonly meta = make("p", { class: "hint" });
  private readonly work = make("div", { class: "work" });
  private readonly refine = make("section", { class: "panel refine" });
  private readonly downloads: Downloads;
  private readonly drive: FilmDrive;
  private readonly dark = matchMedia("(prefers-color-scheme: dark)");
  private shownVersion = 0;
  private wasMaking = false;
  private queue: Promise<unknown> = Promise.resolve();

  /** `photos`: ids of the photos it was made of, where this page knows them. */
  constructor(
    private readonly api: Api,
    private readonly about: About,
    private readonly maker: Maker,
    private avatar: Avatar,
    private readonly photos: readonly string[],
    private readonly gone: () => void,
  ) {
    this.downloads = new Downloads(api, avatar);
    this.drive = new FilmDrive(api, about, avatar.id, this.viewer, () => void this.reread());
    this.shownVersion = avatar.version;
    this.buildViewer();
    const side = make("div", { class: "side" }, this.work, this.refine, this.buildMoving(), this.downloads.root, this.buildEnd());
    const stage = make("div", { class: "stage" }, this.viewer);
    this.root.append(make("div", { class: "head" }, make("div", { class: "name" }, this.title, iconButton("pen", "Rename", () => void this.rename())), this.meta), stage, side);
    this.acceptDrops(stage);
    this.describe();
    this.changed();
  }

  /** Puts the element's own behaviour to work. */
  private buildViewer(): void {
    const { viewer } = this;
    const narrow = innerWidth < NARROW_PX;
    for (const name of ["controls", "idle", "autoplay", ...(narrow ? ["data-folded"] : [])]) viewer.setAttribute(name, "");
    viewer.setAttribute("look", "cursor");
    if (this.about.webcam) viewer.setAttribute("vision", "/webcam/");
    this.paint();
    this.dark.addEventListener("change", this.paint);
    viewer.setAttribute("src", this.avatar.container.split("?")[0]); // the newest: a version may be gone by now
  }

  private readonly paint = (): void => this.viewer.setAttribute("background", this.dark.matches ? BACKGROUNDS.dark : BACKGROUNDS.light);

  get id(): string {
    return this.avatar.id;
  }

  /** The page goes elsewhere: jobs go on, this view does not. */
  leave(): void {
    this.dark.removeEventListener("change", this.paint);
    this.drive.leave();
    this.downloads.leave();
  }

  /** A better version is there: shown in place. */
  news(news: AvatarNews): void {
    if (news.version <= this.shownVersion) return;
    this.shownVersion = news.version;
    // one after the other; what is overtaken meanwhile is left out
    this.queue = this.queue.then(async () => {
      if (news.version < this.shownVersion || !this.root.isConnected) return;
      await customElements.whenDefined("ff-avatar");
      await this.viewer.update(news.url).catch((error: Error) => alertBar("viewer", error.message));
    });
  }

  /** The maker began, moved on or ended. */
  changed(): void {
    const { maker } = this;
    const mine = maker.busy && maker.avatar === this.id && maker.progress !== undefined;
    const hadFocus = this.work.contains(document.activeElement);
    const { note } = this.avatar;
    const notes = notesList([...new Set([...(maker.notes.get(this.id) ?? []), ...(note ? [note] : [])])]);
    this.work.replaceChildren(...(mine && maker.progress ? [maker.progress.root] : notes));
    this.work.classList.toggle("panel", this.work.childElementCount > 0);
    this.refine.hidden = maker.busy || !this.about.personalize || !this.photos.length || (this.avatar.personalized && !note);
    if (hadFocus && !mine) this.title.focus({ preventScroll: true });
    if (this.wasMaking && !mine) this.measureAnew();
    this.wasMaking = mine;
  }

  /** Refining and drawing share this computer: how fast it draws alone shows only now. */
  private measureAnew(): void {
    if ((this.viewer.getAttribute("detail") ?? "auto") === "auto") this.viewer.setAttribute("detail", "auto");
  }

  /** Reads the avatar's record anew. */
  async reread(): Promise<void> {
    try {
      this.avatar = await this.api.avatar(this.id);
      this.describe();
      this.downloads.renew(this.avatar);
      this.changed();
    } catch {
      // the next visit shows it
    }
  }

  private describe(): void {
    const { name, created, gaussians, personalized, note, bytes } = this.avatar;
    this.title.textContent = name;
    document.title = `${name} · FFAvatar`;
    this.viewer.setAttribute("label", `Avatar ${name}`);
    const parts = [dateText(created, true), personalized ? (note ? "partly refined" : "refined to its photos") : "made in one pass", `${gaussians.toLocaleString("en")} Gaussians`, bytesText(bytes)];
    this.meta.textContent = parts.filter(Boolean).join(" · ");
  }

  private async rename(): Promise<void> {
    const renamed = await rename(this.api, this.avatar);
    if (!renamed) return;
    this.avatar = renamed;
    this.describe();
    this.downloads.renew(renamed);
  }

  private buildMoving(): HTMLElement {
    const box = make("section", { class: "panel moving", "aria-labelledby": "move-title" });
    box.append(make("h2", { id: "move-title" }, "Make it move"), this.drive.root);
    if (this.about.webcam) {
      const webcam = button("Use your webcam", "plain", () => {
        this.viewer.toggleAttribute("data-folded", false);
        const start = this.viewer.shadowRoot?.querySelector<HTMLElement>(".webcam button");
        start?.scrollIntoView({ block: "center" });
        start?.focus();
      });
      webcam.prepend(icon("camera"));
      box.append(make("h3", {}, "Webcam"), make("p", { class: "hint" }, "Your own face moves the avatar. The camera's pictures stay in this page."), webcam);
    } else {
      box.append(
        make("details", {}, make("summary", {}, "Webcam is not set up"),
          make("p", { class: "hint" }, "Driving by webcam needs MediaPipe's face tracker, which is not part of FFAvatar. Put its files into a folder and start ", make("code", {}, "ffavatar serve --webcam FOLDER"), "; docs/serve.md says which files.")),
      );
    }
    box.append(make("p", { class: "hint" }, "Or by hand: drag the avatar", make("span", { class: "fine" }, " or press the arrow keys"), " to turn it; the button ☰ on its picture shows and hides the sliders."));
    return box;
  }

  private buildEnd(): HTMLElement {
    const better = button("Refine now", "plain", () => {
      const order: JobOrder = { kind: "personalize", avatar: this.id, photos: this.photos };
      this.maker.begin(order);
    });
    this.refine.append(make("h2", {}, "Refine"), make("p", { class: "hint" }, "Fits the avatar closer to its photos. Takes minutes; you see it get better."), better);
    const bin = button("Delete avatar", "danger", () => {
      void remove(this.api, this.avatar).then((gone) => gone && this.gone());
    });
    bin.prepend(icon("bin"));
    return make("div", { class: "end" }, bin);
  }

  /** Films and pictures dropped on the avatar are for the page; the rest is for the element. */
  private acceptDrops(stage: HTMLElement): void {
    stage.addEventListener(
      "drop",
      (event) => {
        const file = event.dataTransfer?.files[0];
        if (!file || !/^(video|image)\//.test(file.type)) return;
        event.preventDefault();
        event.stopPropagation();
        hideAlert("viewer");
        if (file.type.startsWith("video/")) void this.drive.offer(file);
        else alertBar("viewer", "An avatar is moved by films. Photos make new ones:", make("a", { href: "#/" }, "New avatar"));
      },
      { capture: true },
    );
  }
}
