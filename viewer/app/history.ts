/** The avatars on this server: open, rename, delete. */

import { OfflineError, type Api, type Avatar } from "./api.js";
import { alertBar, announce, ask, dateText, hideAlert, iconButton, make } from "./dom.js";

const LONGEST_NAME = 120;

/** Asks for a new name; the renamed avatar, or undefined where nothing was changed. */
export async function rename(api: Api, avatar: Avatar): Promise<Avatar | undefined> {
  const input = make("input", { type: "text", maxlength: String(LONGEST_NAME), required: "", autofocus: "" });
  input.value = avatar.name;
  const answer = await ask("Rename", [make("label", { class: "field" }, "Name of the avatar", input)], [
    { value: "", label: "Cancel", look: "plain" },
    { value: "save", label: "Save", look: "main" },
  ]);
  const name = input.value.trim();
  if (answer !== "save" || !name || name === avatar.name) return undefined;
  try {
    hideAlert("avatars");
    const renamed = await api.renameAvatar(avatar.id, name);
    announce(`Renamed to ${renamed.name}.`);
    return renamed;
  } catch (error) {
    alertBar("avatars", (error as Error).message);
    return undefined;
  }
}

/** Asks, and deletes; whether it is gone. */
export async function remove(api: Api, avatar: Avatar): Promise<boolean> {
  const picture = make("img", { src: avatar.thumbnail, alt: "", width: "88", height: "88" });
  const text = make("p", {}, make("b", {}, avatar.name), " and all files made from it are deleted from the server. This cannot be undone.");
  const answer = await ask("Delete this avatar?", [make("div", { class: "which" }, picture, text)], [
    { value: "", label: "Keep it", look: "plain" },
    { value: "delete", label: "Delete", look: "danger" },
  ]);
  if (answer !== "delete") return false;
  try {
    hideAlert("avatars");
    await api.removeAvatar(avatar.id);
    announce(`${avatar.name} was deleted.`);
    return true;
  } catch (error) {
    alertBar("avatars", (error as Error).message);
    return false;
  }
}

export class History {
  readonly root = make("section", { class: "history", "aria-labelledby": "history-title" });
  private readonly list = make("ul", { class: "avatars" });
  private readonly note = make("p", { class: "hint" }, "Loading…");

  /** `most`: how many are shown; all by default. */
  constructor(
    private readonly api: Api,
    title: HTMLElement,
    private readonly most = Infinity,
  ) {
    title.id = "history-title";
    this.root.append(title, this.note, this.list);
  }

  /** Reads the list anew. */
  async refresh(): Promise<void> {
    try {
      const avatars = await this.api.avatars();
      this.list.replaceChildren(...avatars.slice(0, this.most).map((avatar) => this.card(avatar)));
      const hidden = avatars.length - this.list.children.length;
      this.note.textContent = avatars.length ? "" : "No avatars yet. The ones you make are kept here until you delete them.";
      if (hidden > 0) this.note.replaceChildren(make("a", { href: "#/avatars" }, `All ${avatars.length} avatars`));
    } catch (error) {
      // that nobody answers is said above the page, until it goes on by itself
      this.note.textContent = error instanceof OfflineError ? "" : (error as Error).message;
    }
  }

  private card(avatar: Avatar): HTMLLIElement {
    const address = `#/avatar/${encodeURIComponent(avatar.id)}`;
    const picture = make("img", { src: avatar.thumbnail, alt: "", width: "256", height: "256", loading: "lazy" });
    const name = make("a", { href: address }, avatar.name);
    const kind = avatar.personalized ? (avatar.note ? "Partly refined" : "Refined") : "Not refined";
    const made = make("li", { class: "avatar" }, picture, make("h3", {}, name), make("p", { class: "hint" }, make("span", {}, `${dateText(avatar.created)} · `), make("span", {}, kind)));
    const pen = iconButton("pen", `Rename ${avatar.name}`, () => {
      void rename(this.api, avatar).then((renamed) => {
        if (!renamed) return;
        const card = this.card(renamed);
        made.replaceWith(card);
        card.querySelector("button")?.focus();
      });
    });
    const bin = iconButton("bin", `Delete ${avatar.name}`, () => {
      void remove(this.api, avatar).then(async (gone) => {
        if (!gone) return;
        await this.refresh();
        const heading = this.root.querySelector<HTMLElement>("h1, h2");
        heading?.setAttribute("tabindex", "-1");
        heading?.focus();
      });
    });
    made.append(make("div", { class: "tools" }, pen, bin));
    return made;
  }
}
