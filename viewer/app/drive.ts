/** A film moves the avatar: uploaded, read by the server, played on the avatar at once, and there as mp4. */

import type { FFAvatarElement } from "../src/index.js";
import type { About, Api, Job } from "./api.js";
import { mayUpload } from "./consent.js";
import { announce, button, bytesText, icon, make, notesList } from "./dom.js";
import { JobRun } from "./jobs.js";
import { Progress } from "./progress.js";

/** The address of the first file whose name ends so. */
export function fileEnding(files: Job["files"], ending: string): string | undefined {
  return Object.entries(files).find(([name]) => name.toLowerCase().endsWith(ending))?.[1];
}

export class FilmDrive {
  readonly root = make("div", { class: "film" });
  private readonly input = make("input", { type: "file", accept: "video/*", hidden: "", "aria-label": "Film file" });
  private readonly choose: HTMLButtonElement;
  private readonly same = make("input", { type: "checkbox" });
  private readonly relative = make("input", { type: "checkbox" });
  private readonly work = make("div", { class: "work" });
  private readonly result = make("div", { class: "result" });
  private readonly problem = make("p", { class: "problem", role: "alert" });
  private abort = new AbortController();
  private run: JobRun | undefined;

  constructor(
    private readonly api: Api,
    private readonly about: About,
    private readonly avatar: string,
    private readonly viewer: FFAvatarElement,
    private readonly done: () => void,
  ) {
    this.choose = button("Choose a film", "plain", () => this.input.click());
    this.choose.prepend(icon("film"));
    this.input.addEventListener("change", () => {
      const file = this.input.files?.[0];
      this.input.value = "";
      if (file) void this.offer(file);
    });
    const { film_bytes, film_seconds } = about.limits;
    const limits = `Up to ${Math.round(film_seconds)} seconds and ${bytesText(film_bytes)}, with one face in it.`;
    const option = (box: HTMLInputElement, label: string, what: string): HTMLElement =>
      make("label", { class: "option" }, box, make("span", {}, make("b", {}, label), make("span", { class: "hint" }, what)));
    const options = [
      option(this.same, "The film shows the same person", "Follows head and shoulders closer; takes longer."),
      option(this.relative, "The film shows somebody else", "Takes over how that face moves, not how it looks at rest. Best where the film begins calmly."),
    ];
    for (const [box, other] of [[this.same, this.relative], [this.relative, this.same]])
      box.addEventListener("change", () => (other.checked &&= !box.checked));
    this.root.append(make("h3", {}, "Film"), make("p", { class: "hint" }, `The avatar does what the face in the film does. ${limits}`), ...options, this.choose, this.input, this.work, this.problem, this.result);
  }

  leave(): void {
    this.abort.abort();
    this.run?.leave();
  }

  /** Asks for consent, where it was not given yet, and begins. */
  async offer(file: File): Promise<void> {
    if (await mayUpload()) await this.begin(file);
  }

  /** Uploads the film and has it read. */
  private async begin(file: File): Promise<void> {
    if (this.choose.disabled) return;
    this.problem.textContent = "";
    const most = this.about.limits.film_bytes;
    if (file.size > most) {
      this.problem.textContent = `This film has ${bytesText(file.size)}; it may have at most ${bytesText(most)}. Cut it or save it smaller.`;
      return;
    }
    this.abort = new AbortController();
    const progress = new Progress("Reading the film", "Cancel", () => this.cancel());
    this.show(progress);
    progress.root.setAttribute("tabindex", "-1");
    progress.root.focus();
    try {
      const film = await this.api.addFilm(file, this.abort.signal);
      if (this.abort.signal.aborted) return this.end();
      this.run = new JobRun(this.api, {
        waiting: (seconds) => progress.waiting(seconds),
        connected: (now) => progress.connected(now),
        job: (job) => progress.job(job),
        avatar: () => undefined,
        ended: (job) => {
          void this.api.removeFilm(film.id).catch(() => undefined); // the server forgets it later by itself
          void this.finished(job);
        },
        failed: (error) => this.end(error.message),
      });
      await this.run.start({ kind: "drive", avatar: this.avatar, film: film.id, relative: this.relative.checked, same_person: this.same.checked });
    } catch (error) {
      this.end(this.abort.signal.aborted ? undefined : (error as Error).message);
    }
  }

  private cancel(): void {
    if (this.run?.id === undefined) {
      this.abort.abort();
      this.run?.leave();
      this.end();
      return;
    }
    this.run.cancel().catch((error: Error) => (this.problem.textContent = error.message));
  }

  private async finished(job: Job): Promise<void> {
    if (job.state !== "done") return this.end(job.state === "failed" ? (job.error ?? "The film could not be used.") : undefined);
    this.end();
    const motion = fileEnding(job.files, ".json");
    const film = fileEnding(job.files, ".mp4");
    if (motion) {
      await this.viewer.setMotion(motion).catch(() => undefined); // the viewer says why
      this.viewer.play();
    }
    const still = button("Stop the movement", "quiet", () => {
      void this.viewer.setMotion(null);
      this.result.replaceChildren(...(film ? [link(film)] : []));
      this.choose.focus();
    });
    const link = (address: string): HTMLAnchorElement => make("a", { href: address, download: "", class: "get" }, icon("down"), "Film of the avatar (mp4)");
    this.result.replaceChildren(make("p", {}, "The avatar plays the film's movement."), ...(film ? [link(film)] : []), ...notesList(job.notes ?? []), still);
    announce("The avatar plays the film's movement.");
    this.done();
  }

  private show(progress: Progress): void {
    this.choose.disabled = true;
    this.work.replaceChildren(progress.root);
  }

  private end(problem?: string): void {
    const hadFocus = this.work.contains(document.activeElement);
    this.run = undefined;
    this.work.replaceChildren();
    this.choose.disabled = false;
    if (hadFocus) this.choose.focus();
    if (problem) this.problem.textContent = problem;
  }
}
