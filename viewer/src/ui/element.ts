/** `<ff-avatar>`: an avatar in a page. Attributes, methods and events are described in README.md. */

import type { HeadParams } from "../core/params.js";
import { controlsOf, randomValues } from "../core/controls.js";
import type { Background, Precision } from "../render/renderer.js";
import type { AvatarInfo } from "../worker/messages.js";
import { addGestures } from "./gestures.js";
import { Panel } from "./panel.js";
import { Recorder, screenshot } from "./recorder.js";
import { parseJson, readSource } from "./sources.js";
import { makeStyle } from "./style.js";
import { AvatarView } from "./view.js";

export type DetailName = "auto" | "5k" | "20k" | "80k";
const DETAILS: readonly DetailName[] = ["5k", "20k", "80k"];

/** A colour `#rrggbb` or "transparent". */
export function parseBackground(text: string): Background {
  if (text === "transparent") return [0, 0, 0, 0];
  const match = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(text);
  if (!match) return [1, 1, 1, 1];
  const [red, green, blue] = match.slice(1).map((hex) => parseInt(hex, 16) / 255);
  return [red, green, blue, 1];
}

export interface FFAvatarEventMap {
  /** The first picture is shown. */
  "ff-load": CustomEvent<AvatarInfo>;
  /** `update` took effect: the newer version's first picture is shown. */
  "ff-update": CustomEvent<AvatarInfo>;
  /** A file, the network or graphics failed; the message is also shown in the element. */
  "ff-error": CustomEvent<Error>;
  /** The clip moved, started or stopped. */
  "ff-time": CustomEvent<{ time: number; duration: number; playing: boolean }>;
  /** The webcam read a face: the values that drive the avatar now. */
  "ff-webcam": CustomEvent<Readonly<Record<string, number>>>;
  /** The level of detail changed; the number of Gaussians. */
  "ff-detail": CustomEvent<{ detail: DetailName; gaussians: number }>;
}

export class FFAvatarElement extends HTMLElement {
  static readonly observedAttributes = ["src", "motion", "background", "detail", "idle", "look", "controls", "label"];

  private readonly stage = document.createElement("div");
  private readonly message = document.createElement("div");
  private readonly status = document.createElement("div");
  private canvas = document.createElement("canvas");
  private view: AvatarView | undefined;
  private recorder: Recorder | undefined;
  private panel: Panel | undefined;
  private removeGestures: (() => void) | undefined;
  private listeners: AbortController | undefined;
  private opening = 0;
  private early: { readonly source: string; readonly data: Promise<ArrayBuffer> } | undefined;
  private readonly resizes = new ResizeObserver(() => this.view?.invalidate());

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [makeStyle()];
    this.stage.className = "stage";
    this.message.className = "message";
    this.message.setAttribute("role", "alert");
    this.message.hidden = true;
    this.status.className = "status";
    this.status.setAttribute("role", "status");
    this.stage.append(this.status, this.message);
    root.append(this.stage);
  }

  connectedCallback(): void {
    this.listeners = new AbortController();
    const query = this.hasAttribute("from-query") ? new URLSearchParams(location.search) : undefined;
    for (const name of ["src", "motion"]) {
      const given = query?.get(name);
      if (given) this.setAttribute(name, given);
    }
    if (!this.view && !this.start()) return;
    this.followPointer(this.listeners.signal);
    this.acceptDrops(this.listeners.signal);
    this.resizes.observe(this.stage);
    if (!this.hasAttribute("src")) this.status.textContent = this.panel ? "Open or drop an avatar file (.safetensors)." : "";
  }

  disconnectedCallback(): void {
    this.listeners?.abort();
    this.resizes.disconnect();
    this.removeGestures?.();
    this.view?.dispose();
    this.view = undefined;
    this.panel?.remove();
    this.panel = undefined;
  }

  /** Everything that needs graphics; false, with the reason shown, where there are none. */
  private start(): boolean {
    this.canvas.remove();
    this.canvas = document.createElement("canvas"); // a canvas keeps its first context for ever
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.part.add("canvas");
    this.stage.prepend(this.canvas);
    this.relabel();
    const source = this.getAttribute("src");
    if (source) {
      // Graphics may take a second to start and block this thread: the file comes meanwhile.
      this.early = { source, data: this.read(source) };
      this.early.data.catch(() => undefined); // `load` tells
    }
    try {
      this.view = new AvatarView(
        this.canvas,
        {
          shown: (info, updated) => {
            this.status.textContent = "";
            if (updated) this.panel?.avatarUpdated(info);
            else this.panel?.avatarShown(info);
            this.emit(updated ? "ff-update" : "ff-load", info);
          },
          failed: (error) => this.fail(error),
          time: () => this.timeChanged(),
          level: (level, gaussians) => this.levelChanged(level, gaussians),
        },
        (this.getAttribute("precision") as Precision | null) ?? "float16",
      );
    } catch (error) {
      this.fail(error as Error);
      return false;
    }
    this.recorder = new Recorder(this.view);
    this.removeGestures = addGestures(this.view, () => this.resetView());
    if (this.hasAttribute("controls")) this.addPanel();
    for (const name of ["background", "detail", "idle"]) this.attributeChangedCallback(name);
    if (source) void this.load(source).catch(() => undefined);
    return true;
  }

  attributeChangedCallback(name: string): void {
    const { view } = this;
    if (name === "label") this.relabel();
    if (!view) return;
    const value = this.getAttribute(name);
    switch (name) {
      case "src":
        if (value) void this.load(value).catch(() => undefined);
        break;
      case "motion":
        if (view.info) void this.setMotion(value).catch(() => undefined);
        break;
      case "background":
        view.background = parseBackground(value ?? "#ffffff");
        this.toggleAttribute("data-clear", view.background[3] === 0);
        view.invalidate();
        break;
      case "detail":
        view.setDetail(DETAILS.includes(value as DetailName) ? DETAILS.indexOf(value as DetailName) : "auto");
        break;
      case "idle":
        view.idle = value !== null && !matchMedia("(prefers-reduced-motion: reduce)").matches;
        view.invalidate();
        break;
      case "look":
        if (value !== "cursor") view.lookAt(undefined);
        break;
      case "controls":
        if (value !== null) this.addPanel();
        else {
          this.panel?.remove();
          this.panel = undefined;
        }
    }
    this.panel?.settingsChanged();
  }

  private addPanel(): void {
    if (this.panel || !this.shadowRoot || !this.view || !this.recorder) return;
    this.panel = new Panel(this, this.view, this.recorder);
    this.shadowRoot.append(this.panel.root);
    this.stage.append(this.panel.bar);
    if (this.view.info) this.panel.avatarShown(this.view.info);
  }

  private relabel(): void {
    const label = this.getAttribute("label") ?? "Animated head avatar";
    this.canvas.setAttribute("aria-label", `${label}. Arrow keys turn it, plus and minus zoom, shift and arrows move it, 0 resets the view, space plays the clip.`);
  }

  // --- what programs call ---

  /** What the avatar is and can do, once one is shown. */
  get info(): AvatarInfo | undefined {
    return this.view?.info;
  }

  /** Shows an avatar: an address or the bytes of a file. Rejects, and shows why, when it cannot be used. */
  async load(source: string | ArrayBuffer): Promise<AvatarInfo> {
    const { view } = this;
    if (!view) throw new Error("the element is not in a page, or has no graphics");
    const turn = ++this.opening;
    this.message.hidden = true;
    this.status.textContent = "Loading the avatar…";
    try {
      const early = this.early?.source === source ? this.early.data : undefined;
      this.early = undefined;
      const buffer = typeof source === "string" ? await (early ?? this.read(source)) : source;
      if (turn !== this.opening) throw new Error("another avatar was asked for meanwhile");
      const info = await view.open(buffer);
      const motion = this.getAttribute("motion");
      if (motion) await this.setMotion(motion);
      return info;
    } catch (error) {
      if (turn === this.opening) this.fail(error as Error);
      throw error;
    }
  }

  /**
   * Shows a newer version of the avatar in place: camera, sliders, clip and what drives it stay, and no moment is empty. An
   * avatar of another head is shown as `load` shows it. Rejects when the file cannot be used; what was shown stays.
   */
  async update(source: string | ArrayBuffer): Promise<AvatarInfo> {
    const { view } = this;
    if (!view?.info) return this.load(source);
    const turn = ++this.opening;
    const buffer = typeof source === "string" ? await this.read(source) : source;
    if (turn !== this.opening) throw new Error("another avatar was asked for meanwhile");
    return view.open(buffer, true);
  }

  /** Sets a clip: an address, a parsed motion file, its bytes, or null for none. Plays it where `autoplay` is set. */
  async setMotion(motion: string | ArrayBuffer | object | null): Promise<void> {
    const { view } = this;
    if (!view) return;
    try {
      let data: unknown = motion;
      if (typeof data === "string") data = data ? await this.read(data) : null;
      if (data instanceof ArrayBuffer) data = parseJson(data);
      view.setMotion(data);
      this.message.hidden = true;
      if (view.motion && this.hasAttribute("autoplay")) view.play();
    } catch (error) {
      this.fail(error as Error);
      throw error;
    }
  }

  play(): void {
    this.view?.play();
  }

  pause(): void {
    this.view?.pause();
  }

  /** Seconds. */
  seek(time: number): void {
    this.view?.seek(time);
  }

  /**
   * Named values: ARKit's 52 coefficients in [0, 1], the head's own expressions, and headYaw, headPitch, headRoll,
   * bodyYaw, bodyPitch, bodyRoll in radians. They replace those of the last call; `{}` ends it. Returns the names that
   * this avatar does not know.
   */
  setARKit(values: Readonly<Record<string, number>>): string[] {
    return this.view?.setDriven(values) ?? [];
  }

  /** A whole pose in place of the resting one, or null. */
  setPose(params: HeadParams | null): void {
    this.view?.setPose(params ?? undefined);
  }

  /** A point for the eyes, metres in the world of the normalised camera (the resting camera is at z = 0, the head at -1.15), or null. */
  lookAt(point: readonly [number, number, number] | null): void {
    this.view?.lookAt(point ?? undefined);
  }

  /** Sliders to zero, the clip stopped at its beginning. */
  neutral(): void {
    const { view } = this;
    if (!view) return;
    for (const name of Object.keys(view.values)) delete view.values[name];
    view.pause();
    view.seek(0);
    this.panel?.valuesChanged();
  }

  /** A random plausible expression on the sliders. */
  random(): void {
    const { view } = this;
    if (!view?.info) return;
    this.neutral();
    Object.assign(view.values, randomValues(controlsOf(view.info)));
    view.invalidate();
    this.panel?.valuesChanged();
  }

  /** The camera back to where it rests. */
  resetView(): void {
    this.view?.orbit.reset();
    this.view?.invalidate();
  }

  /** A PNG. */
  screenshot(): Promise<Blob> {
    return this.view ? screenshot(this.view) : Promise.reject(new Error("nothing is shown"));
  }

  startRecording(): void {
    this.recorder?.start();
  }

  /** The WebM film since `startRecording`. */
  stopRecording(): Promise<Blob> {
    return this.recorder?.stop() ?? Promise.reject(new Error("Nothing is being recorded."));
  }

  /** What the webcam reads, as `setARKit`. */
  driveByWebcam(values: Readonly<Record<string, number>>): void {
    this.setARKit(values);
    this.emit("ff-webcam", values);
  }

  /** Shows a sentence in place of the picture, as an alert. */
  fail(error: Error): void {
    this.status.textContent = "";
    this.message.textContent = error.message;
    this.message.hidden = false;
    this.emit("ff-error", error);
  }

  // --- what happens inside ---

  private read(source: string): Promise<ArrayBuffer> {
    return readSource(source, document, this.hasAttribute("cross-origin"));
  }

  private emit<K extends keyof FFAvatarEventMap>(name: K, detail: FFAvatarEventMap[K]["detail"]): void {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  private timeChanged(): void {
    const { view } = this;
    if (!view) return;
    this.panel?.timeChanged();
    this.emit("ff-time", { time: view.time, duration: view.motion?.seconds ?? 0, playing: view.isPlaying });
  }

  private levelChanged(level: number, gaussians: number): void {
    this.panel?.settingsChanged();
    this.emit("ff-detail", { detail: DETAILS[level], gaussians });
  }

  private followPointer(signal: AbortSignal): void {
    document.addEventListener(
      "pointermove",
      (event) => {
        const { view, canvas } = this;
        if (!view?.info || this.getAttribute("look") !== "cursor") return;
        const box = canvas.getBoundingClientRect();
        const ratio = canvas.width / Math.max(1, box.width);
        view.lookAt(view.pointUnder((event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio));
      },
      { signal },
    );
    document.documentElement.addEventListener(
      "pointerleave",
      () => {
        if (this.getAttribute("look") === "cursor") this.view?.lookAt(undefined);
      },
      { signal },
    );
  }

  /** Files dropped on the element or chosen by hand: avatars, and motions for the avatar shown. */
  async openFile(file: File): Promise<void> {
    const buffer = await file.arrayBuffer();
    const opened = /\.json$/i.test(file.name) ? this.setMotion(buffer) : this.load(buffer);
    await opened.catch(() => undefined); // the reason is on the page
  }

  private acceptDrops(signal: AbortSignal): void {
    if (!this.hasAttribute("controls")) return;
    this.addEventListener("dragover", (event) => event.preventDefault(), { signal });
    this.addEventListener(
      "drop",
      (event) => {
        event.preventDefault();
        const file = event.dataTransfer?.files[0];
        if (file) void this.openFile(file);
      },
      { signal },
    );
  }
}
