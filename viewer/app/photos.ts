/** The photos of the next avatar: dropped, pasted, picked or shot; each with its crop, its matte and the verdict. */

import { ApiError, newKey, type About, type Api, type Photo } from "./api.js";
import { shoot } from "./camera.js";
import { mayUpload } from "./consent.js";
import { announce, button, bytesText, icon, iconButton, make } from "./dom.js";

const PARALLEL = 2;
const MOST_TRIES = 6; // of a busy server
const FALLBACK_WAIT_S = 5;

interface Entry {
  readonly key: string;
  readonly name: string;
  readonly file: File;
  /** The file itself as a picture, until there is a crop. */
  readonly preview: string;
  readonly abort: AbortController;
  readonly card: HTMLLIElement;
  photo: Photo | undefined;
  state: "waiting" | "checking" | "checked" | "failed";
  use: boolean;
  /** Which of several faces, counted from the largest. */
  face: number;
}

export class PhotoBox {
  readonly root = make("section", { class: "photos", "aria-labelledby": "photos-title" });
  private readonly entries: Entry[] = [];
  private readonly list = make("ul", { class: "cards", "aria-label": "Photos" });
  private readonly drop = make("div", { class: "drop" });
  private readonly input = make("input", { type: "file", multiple: "", hidden: "" });
  private readonly clear = button("Remove all photos", "quiet", () => this.removeAll());
  private readonly problem = make("p", { class: "problem", role: "alert" });
  private readonly legend = make("p", { class: "hint" }, "Left: the photo, cut to the head. Right, in white: what is taken for the person. Leave out photos where either is wrong.");
  private readonly days = make("p", { class: "hint" }, "Photos of different days? Choose whose hair and clothes to take.");
  /** Whose hair and clothes are taken; where there is none, the server takes those that most photos show. */
  private liked: Entry | undefined;
  private active = 0;
  private enabled = true;

  constructor(
    private readonly api: Api,
    private readonly about: About,
    private readonly told: () => void,
  ) {
    const choose = button("Choose photos", "main", () => this.input.click());
    choose.prepend(icon("photos"));
    const camera = button("Use the camera", "plain", () => void this.openCamera());
    camera.prepend(icon("camera"));
    this.input.setAttribute("aria-label", "Photo files");
    // Phones turn HEIC into JPEG by themselves for a page that does not name it.
    this.input.accept = about.heic ? "image/*,.heic,.heif,.avif" : "image/*,.avif";
    this.input.addEventListener("change", () => {
      void this.add([...(this.input.files ?? [])]);
      this.input.value = "";
    });
    const { photos, photo_bytes } = about.limits;
    this.drop.append(
      make("h2", { id: "photos-title" }, "Photos"),
      make("p", { class: "lead" }, make("span", { class: "fine" }, "Drop photos of one person here, or paste them."), make("span", { class: "coarse" }, "Photos of one person")),
      make("div", { class: "row" }, choose, camera, this.input),
      make("p", { class: "hint" }, `Up to ${photos} photos of at most ${bytesText(photo_bytes)} each.`),
      this.clear,
    );
    this.clear.hidden = true;
    this.legend.hidden = true;
    this.days.hidden = true;
    this.root.append(this.drop, this.problem, this.legend, this.days, this.list);
  }

  /** Ids of the photos that the avatar is to be made of. */
  get chosen(): string[] {
    return this.entries.filter(isUsed).map(({ photo }) => photo?.id ?? "");
  }

  /** Id of the one whose hair and clothes are to be taken, where one was chosen. */
  get look(): string | undefined {
    return this.liked?.photo?.id;
  }

  get busy(): boolean {
    return this.entries.some(({ state }) => state === "waiting" || state === "checking");
  }

  get count(): number {
    return this.entries.length;
  }

  /** While an avatar is made of them, photos are neither added nor taken away. */
  enable(now: boolean): void {
    this.enabled = now;
    this.root.classList.toggle("still", !now);
    for (const made of this.root.querySelectorAll<HTMLButtonElement | HTMLInputElement>("button, input")) made.disabled = !now;
  }

  private changed(): void {
    this.clear.hidden = this.entries.length < 2;
    this.legend.hidden = !this.entries.some(({ photo }) => photo?.matte);
    this.paintLooks();
    this.told();
  }

  /** The choice is there where two or more photos are used; what cannot be seen does not hold. */
  private paintLooks(): void {
    const choice = this.entries.filter(isUsed).length > 1;
    this.days.hidden = !choice;
    if (!choice || !(this.liked && this.entries.includes(this.liked) && isUsed(this.liked))) this.liked = undefined;
    for (const entry of this.entries) {
      const made = entry.card.querySelector<HTMLButtonElement>("button.look");
      if (!made) continue;
      const pressed = entry === this.liked;
      made.hidden = !choice || !entry.use;
      made.setAttribute("aria-pressed", String(pressed));
      made.querySelector(".icon")?.replaceWith(icon(pressed ? "check" : "person"));
    }
  }

  /** Takes hair and clothes from this photo, and at a second press from those that most photos show. */
  private like(entry: Entry): void {
    this.liked = this.liked === entry ? undefined : entry;
    announce(this.liked ? `Hair and clothes are taken from ${entry.name}.` : "Hair and clothes are those that most photos show.");
    this.changed();
  }

  highlight(now: boolean): void {
    this.drop.classList.toggle("over", now && this.enabled);
  }

  async add(files: readonly File[]): Promise<void> {
    if (!this.enabled || !files.length) return;
    if (!(await mayUpload())) return;
    const { limits } = this.about;
    const room = limits.photos - this.entries.length;
    this.problem.textContent =
      files.length > room ? `At most ${limits.photos} photos can be used; left out: ${files.length - Math.max(0, room)}.` : "";
    for (const file of files.slice(0, Math.max(0, room))) {
      const entry = this.newEntry(file, file.name || "photo");
      if (file.size > limits.photo_bytes)
        this.refuse(entry, `This file has ${bytesText(file.size)}; photos may have at most ${bytesText(limits.photo_bytes)}.`);
    }
    this.pump();
    this.changed();
  }

  private newEntry(file: File, name: string): Entry {
    const card = make("li", { class: "card" });
    const entry: Entry = { key: newKey(), name, file, preview: URL.createObjectURL(file), abort: new AbortController(), card, photo: undefined, state: "waiting", use: false, face: 0 };
    this.entries.push(entry);
    this.list.append(card);
    this.paint(entry);
    return entry;
  }

  private pump(): void {
    for (const entry of this.entries) {
      if (this.active >= PARALLEL) return;
      if (entry.state === "waiting") void this.check(entry);
    }
  }

  private async check(entry: Entry): Promise<void> {
    this.active++;
    entry.state = "checking";
    this.paint(entry);
    try {
      const photos = await this.upload(entry);
      if (this.entries.includes(entry)) this.take(entry, photos);
    } catch (error) {
      if (!entry.abort.signal.aborted) this.refuse(entry, (error as Error).message);
    } finally {
      this.active--;
      this.pump();
      this.changed();
    }
  }

  /** Asks a busy server again, when it says. */
  private async upload(entry: Entry): Promise<readonly Photo[]> {
    for (let left = MOST_TRIES - 1; ; left--)
      try {
        return await this.api.addPhoto(entry.file, entry.face, entry.abort.signal);
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 503) || !left) throw error;
        const verdict = entry.card.querySelector(".verdict");
        if (verdict) verdict.textContent = "The server is busy; trying again soon…";
        await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter ?? FALLBACK_WAIT_S)));
        entry.abort.signal.throwIfAborted();
      }
  }

  /** Another of the faces in a photo. */
  private nextFace(entry: Entry, faces: number): void {
    const { photo } = entry;
    if (photo) void this.api.removePhoto(photo.id).catch(() => undefined);
    Object.assign(entry, { face: (entry.face + 1) % faces, photo: undefined, state: "waiting", use: false });
    this.paint(entry);
    this.pump();
    this.changed();
  }

  /** A file's verdict; one that shows several faces gets a card for each. */
  private take(entry: Entry, photos: readonly Photo[]): void {
    photos.forEach((photo, k) => {
      const twin = this.entries.find((other) => other !== entry && other.photo?.id === photo.id);
      const target = k ? this.newEntry(entry.file, entry.name) : entry;
      if (twin) {
        this.forget(target);
        this.problem.textContent = `${entry.name} is here already${twin.name === entry.name ? "" : `, as ${twin.name}`}.`;
        return;
      }
      Object.assign(target, { photo, state: "checked", use: photo.kept });
      this.paint(target);
    });
    if (entry.state === "checked") announce(entry.use ? `${entry.name}: can be used.` : `${entry.name}: not used. ${reasonText(photos[0].reason, entry.name)}`);
  }

  private refuse(entry: Entry, reason: string): void {
    Object.assign(entry, { state: "failed", use: false, photo: undefined });
    this.paint(entry, reason);
    announce(`${entry.name}: ${reason}`);
    this.changed();
  }

  private paint(entry: Entry, reason = ""): void {
    const { card, photo, state, name } = entry;
    const hadFocus = card.contains(document.activeElement);
    const pictures = make("div", { class: "pictures" });
    if (photo?.crop) {
      pictures.append(make("img", { src: photo.crop, alt: `${name}, cut to the head`, width: "256", height: "256" }));
      if (photo.matte) pictures.append(make("img", { src: photo.matte, alt: `What of ${name} is the person: its matte`, width: "256", height: "256" }));
    } else {
      const picture = make("img", { src: entry.preview, alt: "", class: "whole" });
      picture.addEventListener("error", () => pictures.remove()); // no picture, or one that only the server reads
      pictures.append(picture);
      if (state === "waiting" || state === "checking") pictures.append(icon("wait"));
    }
    const words = make("div", { class: "words" }, make("h3", { title: name }, name));
    const remove = iconButton("bin", `Remove ${name}`, () => this.remove(entry));
    if (state === "waiting" || state === "checking") {
      card.dataset["state"] = "busy";
      words.append(make("p", { class: "verdict" }, state === "waiting" ? "Waiting…" : "Looking for the face…"));
    } else if (state === "failed") {
      card.dataset["state"] = "refused";
      const again = button("Try again", "quiet", () => {
        entry.state = "waiting";
        this.paint(entry);
        this.pump();
      });
      words.append(make("p", { class: "verdict" }, "Not used"), make("p", { class: "reason" }, reason));
      if (entry.file.size <= this.about.limits.photo_bytes) words.append(again);
    } else if (photo && !photo.kept) {
      card.dataset["state"] = "refused";
      words.append(make("p", { class: "verdict" }, "Not used"), make("p", { class: "reason" }, reasonText(photo.reason, name)));
    } else if (photo) {
      const box = make("input", { type: "checkbox" });
      box.checked = entry.use;
      const verdict = make("span", {}, entry.use ? "Used" : "Left out");
      box.addEventListener("change", () => {
        entry.use = box.checked;
        card.dataset["state"] = box.checked ? "used" : "left";
        verdict.textContent = box.checked ? "Used" : "Left out";
        this.changed();
      });
      card.dataset["state"] = entry.use ? "used" : "left";
      words.append(make("label", { class: "verdict" }, box, verdict, make("span", { class: "unseen" }, ` ${name}`)));
      words.append(make("p", { class: "hint" }, noteText(photo.reason) || `${photo.width} × ${photo.height} pixels`));
      const look = button("Hair and clothes", "quiet", () => this.like(entry));
      look.classList.add("look");
      look.title = "Hair and clothes from this one";
      look.prepend(icon("person"));
      look.append(make("span", { class: "unseen" }, ` from ${name}`));
      words.append(look);
    }
    if (photo && state === "checked" && photo.faces > 1)
      words.append(button(`Use another face (this is ${entry.face + 1} of ${photo.faces})`, "quiet", () => this.nextFace(entry, photo.faces)));
    card.replaceChildren(pictures, words, remove);
    if (hadFocus) card.querySelector<HTMLElement>("button, input")?.focus();
  }

  private forget(entry: Entry): void {
    this.entries.splice(this.entries.indexOf(entry), 1);
    entry.card.remove();
    URL.revokeObjectURL(entry.preview);
  }

  /** Here and on the server, which else forgets it later by itself. */
  private discard(entry: Entry): void {
    entry.abort.abort();
    this.forget(entry);
    if (entry.photo) void this.api.removePhoto(entry.photo.id).catch(() => undefined);
  }

  private removeAll(): void {
    for (const entry of [...this.entries]) this.discard(entry);
    this.problem.textContent = "";
    announce("All photos removed.");
    this.drop.querySelector<HTMLElement>("button")?.focus();
    this.changed();
  }

  private remove(entry: Entry): void {
    const at = this.entries.indexOf(entry);
    this.discard(entry);
    announce(`${entry.name} removed.`);
    const next = this.entries[Math.min(at, this.entries.length - 1)]?.card.querySelector<HTMLElement>("button.bare");
    (next ?? this.drop.querySelector<HTMLElement>("button"))?.focus(); // the next one's, of the same kind
    this.changed();
  }

  private async openCamera(): Promise<void> {
    if (await mayUpload()) await shoot((file) => void this.add([file]));
  }
}

const isUsed = ({ use, photo }: Entry): boolean => use && photo?.kept === true;

/** What the server notes of a photo that can be used; faces are chosen by a button here. */
const noteText = (note: string | null): string => (note ?? "").replace("; the option face chooses who is meant.", ".");

/** The server's sentence without the file's name before it, which the card shows already. */
function reasonText(reason: string | null, name: string): string {
  if (!reason?.startsWith(`${name}: `)) return reason ?? "No reason was given.";
  const text = reason.slice(name.length + 2);
  return text.charAt(0).toUpperCase() + text.slice(1);
}
