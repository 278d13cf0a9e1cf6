/** The controls beside the picture: clip, expression sliders, view settings, and the bar of buttons. */

import { controlsOf, type Control, type ControlGroup } from "../core/controls.js";
import { DETAIL_LEVELS } from "../core/detail.js";
import type { AvatarInfo } from "../worker/messages.js";
import type { FFAvatarElement } from "./element.js";
import { download, type Recorder } from "./recorder.js";
import type { AvatarView } from "./view.js";
import { Webcam, type WebcamState } from "./webcam.js";

const GROUPS: readonly [ControlGroup, string][] = [
  ["head", "Head"],
  ["eyes", "Eyes"],
  ["brows", "Brows"],
  ["mouth", "Mouth"],
  ["other", "Other"],
];
const CONSENT =
  "Your face moves the avatar. The camera's pictures are worked on in this page only: none is stored, none leaves your device.";
const CAMERA_STATES: Record<WebcamState, string> = {
  off: "",
  starting: "Starting the camera…",
  calibrating: "Look straight ahead with a relaxed face…",
  driving: "The avatar follows your face.",
  "no face": "No face is seen.",
};
const SPEEDS = [0.25, 0.5, 1, 1.5, 2];

type Attributes = Record<string, string>;

function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A 24 x 24 line drawing. */
function icon(path: string): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

const ICONS = {
  play: "M8 5v14l11-7z",
  pause: "M8 5v14M16 5v14",
  reset: "M4 12a8 8 0 1 0 3-6.2M4 4v4h4",
  neutral: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M9 10v.01M15 10v.01M9 15h6",
  random: "M4 7h3l9 10h4M17 14l3 3l-3 3M4 17h3l3-3.3M13.5 9.5L16 7h4M17 4l3 3l-3 3",
  photo: "M4 8h3l2-3h6l2 3h3v11H4zM12 10a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7",
  record: "M12 5a7 7 0 1 0 0 14a7 7 0 1 0 0-14M12 9.5a2.5 2.5 0 1 0 0 5a2.5 2.5 0 1 0 0-5",
  stop: "M7 7h10v10H7z",
  panel: "M4 7h16M4 12h16M4 17h16",
  open: "M4 19V5h6l2 3h8v11z",
};

interface Slider {
  readonly control: Control;
  readonly row: HTMLElement;
  readonly input: HTMLInputElement;
  readonly output: HTMLElement;
}

export class Panel {
  readonly root = make("aside", { class: "panel", "aria-label": "Avatar controls" });
  readonly bar = make("div", { class: "bar", role: "toolbar", "aria-label": "Avatar actions" });
  private readonly sliders: Slider[] = [];
  private readonly groups = make("div", { class: "groups" });
  private readonly search = make("input", { type: "search", placeholder: "Search sliders", "aria-label": "Search sliders" });
  private readonly found = make("p", { class: "hint", role: "status" });
  private readonly clip = make("section", { class: "clip" });
  private readonly playButton: HTMLButtonElement;
  private readonly scrubber = make("input", { type: "range", min: "0", step: "0.01", "aria-label": "Time in the clip" });
  private readonly clock = make("span", { class: "clock" });
  private readonly detail = make("select");
  private readonly color = make("input", { type: "color" });
  private readonly clear = make("input", { type: "checkbox" });
  private readonly follow = make("input", { type: "checkbox" });
  private readonly idle = make("input", { type: "checkbox" });
  private webcam: Webcam | undefined;
  private readonly about = make("p", { class: "hint about" });

  constructor(
    private readonly element: FFAvatarElement,
    private readonly view: AvatarView,
    private readonly recorder: Recorder,
  ) {
    this.playButton = this.button(ICONS.play, "Play", () => (view.isPlaying ? view.pause() : view.play()));
    this.buildBar();
    this.buildClip();
    const expression = make("section", {}, make("h2", {}, "Expression"), this.search, this.found, this.groups);
    this.root.append(this.clip, ...this.buildWebcam(), expression, this.buildSettings(), this.about);
    this.search.addEventListener("input", () => this.filter());
    this.settingsChanged();
  }

  remove(): void {
    this.webcam?.dispose();
    this.root.remove();
    this.bar.remove();
    this.element.toggleAttribute("data-folded", false);
  }

  private button(path: string, label: string, act: () => void): HTMLButtonElement {
    const made = make("button", { type: "button", title: label, "aria-label": label }, icon(path));
    made.addEventListener("click", act);
    return made;
  }

  private relabel(button: HTMLButtonElement, path: string, label: string): void {
    button.title = label;
    button.setAttribute("aria-label", label);
    button.replaceChildren(icon(path));
  }

  private buildBar(): void {
    const { element, recorder } = this;
    const record: HTMLButtonElement = this.button(ICONS.record, "Record a film", () => void toggle());
    const toggle = async (): Promise<void> => {
      try {
        if (recorder.active) {
          this.relabel(record, ICONS.record, "Record a film");
          download(await recorder.stop(), "avatar.webm");
        } else {
          recorder.start();
          this.relabel(record, ICONS.stop, "Stop recording");
        }
        record.classList.toggle("active", recorder.active);
      } catch (error) {
        element.fail(error as Error);
      }
    };
    const file = make("input", { type: "file", accept: ".safetensors,.json", hidden: "" });
    file.addEventListener("change", () => {
      if (file.files?.[0]) void element.openFile(file.files[0]);
      file.value = "";
    });
    const fold = this.button(ICONS.panel, "Show or hide the controls", () => {
      fold.setAttribute("aria-expanded", String(!element.toggleAttribute("data-folded")));
    });
    fold.setAttribute("aria-expanded", String(!element.hasAttribute("data-folded")));
    this.bar.append(
      this.button(ICONS.open, "Open an avatar or motion file", () => file.click()),
      this.button(ICONS.neutral, "Neutral expression", () => element.neutral()),
      this.button(ICONS.random, "Random expression", () => element.random()),
      this.button(ICONS.reset, "Reset the view", () => element.resetView()),
      this.button(ICONS.photo, "Save a picture", () => {
        void element.screenshot().then((blob) => download(blob, "avatar.png"), (error: Error) => element.fail(error));
      }),
      record,
      fold,
      file,
    );
  }

  private buildClip(): void {
    const { view } = this;
    this.scrubber.addEventListener("input", () => {
      const wanted = Number(this.scrubber.value); // pausing puts the slider back to where the clip is
      view.pause();
      view.seek(wanted);
    });
    const speed = make("select", { "aria-label": "Speed" });
    for (const value of SPEEDS) speed.append(make("option", { value: String(value) }, `${value}×`));
    speed.value = "1";
    speed.addEventListener("change", () => (view.speed = Number(speed.value)));
    const loop = make("input", { type: "checkbox" });
    loop.checked = view.loop;
    loop.addEventListener("change", () => (view.loop = loop.checked));
    this.clip.append(
      make("h2", {}, "Clip"),
      make("div", { class: "line" }, this.playButton, this.scrubber),
      make("div", { class: "line" }, this.clock, make("label", {}, loop, "Loop"), speed),
    );
    this.clip.hidden = true;
  }

  /** Only where the page has the webcam's files. */
  private buildWebcam(): HTMLElement[] {
    const folder = this.element.getAttribute("vision");
    if (folder === null) return [];
    const state = make("p", { class: "hint", role: "status" });
    const begin = make("button", { type: "button", class: "wide" }, "Allow and start the camera");
    const neutral = make("button", { type: "button", class: "wide" }, "This is my neutral face");
    const mirror = make("input", { type: "checkbox" });
    mirror.checked = true;
    const webcam = new Webcam(folder, {
      values: (values) => this.element.driveByWebcam(values),
      state: (now) => {
        state.textContent = CAMERA_STATES[now];
        begin.textContent = now === "off" ? "Allow and start the camera" : "Stop the camera";
        neutral.hidden = webcam.video.hidden = now === "off" || now === "starting";
      },
    });
    this.webcam = webcam;
    neutral.hidden = webcam.video.hidden = true;
    webcam.video.setAttribute("aria-label", "What the camera sees");
    begin.addEventListener("click", () => {
      if (webcam.state !== "off") webcam.stop();
      else webcam.start().catch((error: Error) => (state.textContent = error.message));
    });
    neutral.addEventListener("click", () => webcam.driver.calibrate());
    mirror.addEventListener("change", () => (webcam.driver.mirror = mirror.checked));
    const consent = make("p", { class: "hint" }, CONSENT);
    const mirrored = make("label", { class: "line" }, "Like a mirror", mirror);
    const parts = [make("h2", {}, "Webcam"), consent, begin, state, webcam.video, neutral, mirrored];
    return [make("section", { class: "webcam" }, ...parts)];
  }

  private buildSettings(): HTMLElement {
    const { element } = this;
    this.detail.append(make("option", { value: "auto" }, "Automatic"));
    for (const count of DETAIL_LEVELS) {
      const name = `${count / 1000}k`;
      const all = count === DETAIL_LEVELS[DETAIL_LEVELS.length - 1]; // how many that are differs from avatar to avatar
      this.detail.append(make("option", { value: name }, all ? "All" : `${count / 1000},000`));
    }
    const paint = (): void => element.setAttribute("background", this.clear.checked ? "transparent" : this.color.value);
    this.detail.addEventListener("change", () => element.setAttribute("detail", this.detail.value));
    this.color.addEventListener("input", () => {
      this.clear.checked = false;
      paint();
    });
    this.clear.addEventListener("change", paint);
    this.follow.addEventListener("change", () => element.setAttribute("look", this.follow.checked ? "cursor" : "none"));
    this.idle.addEventListener("change", () => element.toggleAttribute("idle", this.idle.checked));
    return make(
      "section",
      {},
      make("h2", {}, "View"),
      make("label", { class: "line" }, "Background", this.color),
      make("label", { class: "line" }, "Transparent", this.clear),
      make("label", { class: "line" }, "Eyes follow the pointer", this.follow),
      make("label", { class: "line" }, "Blink and breathe", this.idle),
      make("label", { class: "line" }, "Gaussians", this.detail),
    );
  }

  /** Sliders for a newly shown avatar. */
  avatarShown(info: AvatarInfo): void {
    this.sliders.length = 0;
    this.groups.replaceChildren();
    const controls = controlsOf(info);
    for (const [group, title] of GROUPS) {
      const members = controls.filter((control) => control.group === group);
      if (!members.length) continue;
      const box = make("details", {}, make("summary", {}, title, make("small", {}, String(members.length))));
      box.open = group === "head";
      box.append(...members.map((control) => this.slider(control)));
      this.groups.append(box);
    }
    this.avatarUpdated(info);
    this.timeChanged();
    this.filter();
  }

  /** Another version of the same avatar: its sliders stay. */
  avatarUpdated(info: AvatarInfo): void {
    this.about.textContent = `${info.gaussianCount.toLocaleString("en")} Gaussians on the head ${info.edition}. ${info.licence}`;
    this.settingsChanged();
  }

  private slider(control: Control): HTMLElement {
    const { min, max, label, name } = control;
    const input = make("input", { type: "range", min: String(min), max: String(max), step: String((max - min) / 200) });
    const output = make("span", { class: "value", "aria-hidden": "true" }); // the slider itself says its value
    const row = make("label", { class: "slider", "data-name": name }, make("span", {}, label), output, input);
    input.value = "0";
    input.addEventListener("input", () => {
      this.view.values[name] = Number(input.value);
      output.textContent = Number(input.value).toFixed(2);
      this.view.invalidate();
    });
    row.addEventListener("dblclick", () => {
      input.value = "0";
      input.dispatchEvent(new Event("input"));
    });
    this.sliders.push({ control, row, input, output });
    return row;
  }

  /** The values were set elsewhere. */
  valuesChanged(): void {
    for (const { control, input, output } of this.sliders) {
      const value = this.view.values[control.name] ?? 0;
      input.value = String(value);
      output.textContent = value ? value.toFixed(2) : "";
    }
    this.view.invalidate();
  }

  private filter(): void {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { control, row } of this.sliders) {
      const text = `${control.label} ${control.name} ${control.group}`.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown++;
    }
    for (const box of this.groups.querySelectorAll("details")) {
      const some = [...box.querySelectorAll<HTMLElement>(".slider")].some((row) => !row.hidden);
      box.hidden = !some;
      if (words.length) box.open = some;
    }
    this.found.textContent = words.length ? `${shown} of ${this.sliders.length} sliders` : "";
  }

  timeChanged(): void {
    const { view } = this;
    this.clip.hidden = !view.motion;
    if (!view.motion) return;
    this.scrubber.max = String(view.motion.seconds);
    this.scrubber.value = String(view.time);
    this.clock.textContent = `${view.time.toFixed(1)} / ${view.motion.seconds.toFixed(1)} s`;
    const label = view.isPlaying ? "Pause" : "Play";
    if (this.playButton.title !== label) this.relabel(this.playButton, view.isPlaying ? ICONS.pause : ICONS.play, label);
  }

  settingsChanged(): void {
    const { element, view } = this;
    const background = element.getAttribute("background") ?? "#ffffff";
    this.clear.checked = background === "transparent";
    if (!this.clear.checked) this.color.value = background;
    this.follow.checked = element.getAttribute("look") === "cursor";
    this.idle.checked = element.hasAttribute("idle");
    this.detail.value = element.getAttribute("detail") ?? "auto";
    const now = view.gaussians;
    this.detail.options[0].textContent = now ? `Automatic (${now.toLocaleString("en")})` : "Automatic";
  }
}
