/** The first page: photos in, one button, and the avatars made before. */

import type { About, Api } from "./api.js";
import { whereText } from "./consent.js";
import { button, icon, make } from "./dom.js";
import { History } from "./history.js";
import type { Maker } from "./maker.js";
import { PhotoBox } from "./photos.js";

const RECENT = 4;

export class Home {
  readonly root = make("div", { class: "home" });
  readonly photos: PhotoBox;
  private readonly history: History;
  private readonly go: HTMLButtonElement;
  private readonly name = make("input", { type: "text", maxlength: "120", autocomplete: "off", placeholder: "Optional" });
  private readonly refine = make("input", { type: "checkbox" });
  private readonly count = make("p", { class: "count", id: "count" });
  private readonly form = make("div", { class: "order" });
  private readonly work = make("div", { class: "work" });

  constructor(
    api: Api,
    about: About,
    private readonly maker: Maker,
    /** A press of the button: photo ids. */
    private readonly started: (photos: readonly string[]) => void,
  ) {
    this.photos = new PhotoBox(api, about, () => this.changed());
    this.history = new History(api, make("h2", {}, "Your avatars"), RECENT);
    this.go = button("Make avatar", "main", () => this.start());
    this.go.classList.add("big");
    this.go.setAttribute("aria-describedby", "count");
    this.form.append(make("h2", {}, "Avatar"), make("label", { class: "field" }, "Name", this.name));
    if (about.personalize) {
      const words = make("span", {}, make("b", {}, "Refine it to the photos"), make("span", { class: "hint" }, "Takes minutes. The avatar opens before, and gets better while you look."));
      this.form.append(make("label", { class: "option" }, this.refine, words));
    }
    this.form.append(this.count, this.go);
    const private_ = make("p", { class: "private" }, icon("lock"), make("span", {}, whereText()));
    const side = make("aside", { class: "panel", "aria-label": "Make the avatar" }, this.form, this.work, private_);
    this.root.append(
      make("div", { class: "intro" },
        make("h1", { tabindex: "-1" }, "A 3D avatar from a few photos"),
        make("p", {}, "One sharp photo from the front is enough. Three to eight, from different sides and in the same light, are better.")),
      make("div", { class: "bench" }, this.photos.root, side),
      this.history.root,
    );
    this.changed();
  }

  shown(): void {
    void this.history.refresh();
    this.changed();
  }

  changed(): void {
    const { chosen, busy, count } = this.photos;
    const making = this.maker.busy;
    const hadFocus = this.work.contains(document.activeElement);
    this.form.hidden = making;
    this.work.replaceChildren(...(making && this.maker.progress ? [this.maker.progress.root] : []));
    if (making && this.maker.avatar)
      this.work.append(make("a", { href: `#/avatar/${encodeURIComponent(this.maker.avatar)}`, class: "onward" }, "See the avatar"));
    this.photos.enable(!making);
    this.go.disabled = busy || !chosen.length;
    this.count.textContent = busy
      ? "Looking at the photos…"
      : chosen.length
        ? `${chosen.length} ${chosen.length === 1 ? "photo" : "photos"} will be used.`
        : count
          ? "None of these photos can be used yet."
          : "Add at least one photo.";
    if (hadFocus && !making) (this.go.disabled ? this.name : this.go).focus();
  }

  private start(): void {
    const { chosen: photos, look } = this.photos;
    const name = this.name.value.trim();
    this.maker.begin({ kind: "reconstruct", photos, personalize: this.refine.checked, ...(name ? { name } : {}), ...(look ? { look } : {}) });
    this.started(photos);
    const { progress } = this.maker;
    progress?.root.setAttribute("tabindex", "-1");
    progress?.root.focus();
  }
}
