/** Files to take away: the avatar's own, and what the server makes for other programs. */

import type { Api, Avatar, Job } from "./api.js";
import { announce, bytesText, icon, make } from "./dom.js";
import { JobRun } from "./jobs.js";

interface Format {
  readonly format: string;
  readonly label: string;
  readonly what: string;
}
const MAIN: readonly Format[] = [
  { format: "html", label: "Web page", what: "One file that opens in any browser, with sliders" },
  { format: "ply", label: "3D Gaussians (.ply)", what: "For splat viewers and editors" },
  { format: "mesh.glb", label: "Rigged mesh (.glb)", what: "For Blender, Unity and other 3D programs" },
];
const MORE: readonly Format[] = [
  { format: "glb", label: "Rigged splats (.glb)", what: "With expressions and joints, for programs that know splats" },
  { format: "spz", label: "Compressed splats (.spz)", what: "Small, for the web" },
  { format: "splat", label: "Splats (.splat)", what: "For older web viewers" },
  { format: "obj", label: "Mesh (.obj)", what: "The still head with its colours" },
  { format: "usda", label: "USD (.usda)", what: "For film and animation programs" },
  { format: "zip", label: "LAM package (.zip)", what: "For LAM's web viewer" },
];

/** A name that every file system takes. */
const fileName = (name: string): string => name.replace(/[^\p{L}\p{N} _.-]+/gu, "").trim().slice(0, 80) || "avatar";

export class Downloads {
  readonly root = make("section", { class: "panel downloads", "aria-labelledby": "download-title" });
  private readonly rows = make("div", { class: "rows" });
  private readonly made = new Map<string, string>();
  private readonly runs = new Map<string, JobRun>();
  private readonly states = new Map<string, string>();
  /** Formats that could not be made; the reason is their state. */
  private readonly failed = new Set<string>();
  private isOpen = false;

  constructor(
    private readonly api: Api,
    private avatar: Avatar,
  ) {
    this.root.append(make("h2", { id: "download-title" }, "Download"), this.rows);
    this.paint();
  }

  /** The avatar changed: what was made of the version before is made anew. */
  renew(avatar: Avatar): void {
    if (avatar.version !== this.avatar.version) {
      this.made.clear();
      this.states.clear();
      this.failed.clear();
    }
    this.avatar = avatar;
    this.paint();
  }

  leave(): void {
    for (const run of this.runs.values()) run.leave();
  }

  private paint(): void {
    const focused = (document.activeElement as HTMLElement | null)?.dataset["format"];
    const { avatar } = this;
    const own = make("a", { class: "item", href: avatar.container, download: `${fileName(avatar.name)}.safetensors`, "data-format": "container" }, icon("down"), words("Avatar file", `For FFAvatar itself, ${bytesText(avatar.bytes)}`));
    const more = make("details", {}, make("summary", {}, "More formats"), ...MORE.map((format) => this.row(format)));
    more.open = this.isOpen;
    more.addEventListener("toggle", () => (this.isOpen = more.open));
    const films = Object.entries(avatar.files).filter(([name]) => /\.(mp4|webm|gif)$/i.test(name));
    const film = films.length
      ? films.map(([name, url]) => make("a", { class: "item", href: url, download: "", "data-format": name }, icon("down"), words(`Film (.${name.split(".").pop()})`, name)))
      : [make("div", { class: "item off" }, icon("film"), words("Film (.mp4)", "Make it move with a film first"))];
    this.rows.replaceChildren(own, ...MAIN.map((format) => this.row(format)), ...film, more);
    if (focused) this.rows.querySelector<HTMLElement>(`[data-format="${CSS.escape(focused)}"]`)?.focus();
  }

  private row({ format, label, what }: Format): HTMLElement {
    const state = this.states.get(format);
    const address = this.made.get(format);
    if (address) return make("a", { class: "item", href: address, download: "", "data-format": format }, icon("check"), words(label, "Ready; download again"));
    const row = make("button", { type: "button", class: "item", "data-format": format }, icon(state && this.runs.has(format) ? "wait" : "down"), words(label, state ?? what));
    row.classList.toggle("failed", this.failed.has(format));
    row.setAttribute("aria-disabled", String(this.runs.has(format)));
    row.addEventListener("click", () => {
      if (!this.runs.has(format)) this.begin(format, label);
    });
    return row;
  }

  private begin(format: string, label: string): void {
    const say = (state: string): void => {
      this.states.set(format, state);
      this.paint();
    };
    const over = (state: string | undefined): void => {
      this.runs.delete(format);
      if (state === undefined) this.states.delete(format);
      else {
        this.states.set(format, `${state.replace(/[.\s]*$/, ".")} Press to try again.`);
        this.failed.add(format);
        announce(`${label}: ${state}`);
      }
      this.paint();
    };
    const run = new JobRun(this.api, {
      waiting: (seconds) => say(seconds ? `Server busy; again in ${seconds} s` : "Trying again…"),
      connected: (now) => say(now ? "Making it…" : "Connecting again…"),
      job: (job) => say(job.state === "queued" ? "Waiting for its turn…" : "Making it…"),
      avatar: () => undefined,
      ended: (job) => {
        const address = addressOf(job);
        if (job.state !== "done" || !address) return over(job.error ?? "Could not be made");
        this.made.set(format, address);
        announce(`${label} is ready.`);
        over(undefined);
        take(address);
      },
      failed: (error) => over(error.message),
    });
    this.runs.set(format, run);
    this.failed.delete(format);
    say("Making it…");
    void run.start({ kind: "export", avatar: this.avatar.id, format });
  }
}

function words(label: string, what: string): HTMLElement {
  return make("span", { class: "words" }, make("span", {}, label), make("span", { class: "hint" }, what));
}

function addressOf(job: Job): string | undefined {
  return Object.values(job.files)[0];
}

/** The browser saves the file. */
function take(address: string): void {
  const link = make("a", { href: address, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}
