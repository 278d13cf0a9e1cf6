/** A job's stages, counts and time left, with a button that stops it. */

import type { Job } from "./api.js";
import { announce, button, icon, leftText, make } from "./dom.js";

/** Friendlier words for the server's own names of stages. */
const STAGES: Readonly<Record<string, string>> = {
  "reading photos": "Reading the photos",
  "choosing views": "Choosing the best views",
  reconstructing: "Building the avatar",
  personalizing: "Refining it to the photos",
  drawing: "Drawing the film",
  writing: "Writing the file",
};
const stageText = (name: string): string => STAGES[name] ?? sentence(name);
const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1).replace(/[_]/g, " ");

export class Progress {
  readonly root = make("section", { class: "progress" });
  private readonly title = make("h3", {});
  private readonly list = make("ol", { class: "stages" });
  private readonly bar = make("progress", {});
  private readonly note = make("p", { class: "note" });
  private readonly link = make("p", { class: "note lost" });
  private readonly stop: HTMLButtonElement;
  private stage: string | undefined;
  private readonly rows = new Map<string, HTMLLIElement>();

  constructor(title: string, stopLabel: string, cancel: () => void) {
    this.title.textContent = title;
    this.stop = button(stopLabel, "plain", () => {
      this.stop.disabled = true;
      this.note.textContent = "Stopping…";
      cancel();
    });
    this.link.hidden = true;
    this.bar.setAttribute("aria-label", title);
    this.root.setAttribute("aria-label", title);
    this.root.append(this.title, this.list, this.bar, this.note, this.link, this.stop);
    this.note.textContent = "Starting…";
  }

  /** Another heading for the same job, as when its first result is there. */
  rename(title: string, stopLabel: string): void {
    this.title.textContent = title;
    this.stop.textContent = stopLabel;
    for (const made of [this.bar, this.root]) made.setAttribute("aria-label", title);
  }

  waiting(seconds: number): void {
    this.bar.removeAttribute("value");
    this.note.textContent = seconds
      ? `The server is busy with other work. Trying again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`
      : "Trying again…";
    if (this.stage !== "waiting") announce("The server is busy. It will be asked again by itself.");
    this.stage = "waiting";
  }

  job(job: Job): void {
    if (job.state === "queued") {
      this.bar.removeAttribute("value");
      this.note.textContent = job.position ? `Waiting for its turn: number ${job.position} in the queue.` : "Waiting for its turn.";
      return;
    }
    if (job.stage && job.stage !== this.stage) this.begin(job.stage);
    if (job.total > 1 || job.done) {
      this.bar.max = job.total || 1;
      this.bar.value = job.done;
    } else this.bar.removeAttribute("value");
    const count = job.total > 1 ? `${job.done} of ${job.total}` : "";
    const left = job.seconds_left !== null && job.state === "running" ? leftText(job.seconds_left) : "";
    if (!this.stop.disabled) this.note.textContent = sentence([count, left].filter(Boolean).join(", ")) || "Working…";
  }

  connected(now: boolean): void {
    if (this.link.hidden === now) return;
    this.link.hidden = now;
    this.link.textContent = now ? "" : "The connection is lost. The work goes on; connecting again…";
    announce(now ? "Connected again." : this.link.textContent);
  }

  private begin(stage: string): void {
    this.stage = stage;
    const known = this.rows.get(stage); // events that are told again after a reconnection go back to an earlier stage
    for (const [name, row] of [...this.rows]) {
      row.removeAttribute("aria-current");
      row.querySelector("svg")?.replaceWith(icon("check"));
      if (known && known.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING) {
        row.remove();
        this.rows.delete(name);
      }
    }
    const row = known ?? make("li", {}, icon("wait"), stageText(stage));
    row.setAttribute("aria-current", "step");
    row.querySelector("svg")?.replaceWith(icon("wait"));
    this.rows.set(stage, row);
    this.list.append(row);
    announce(`${stageText(stage)}.`);
  }
}
