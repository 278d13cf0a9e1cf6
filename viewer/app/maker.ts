/** The avatar that is being made or refined: one at a time in this page; it survives a reload of the page. */

import { ApiError, type Api, type AvatarNews, type Job, type JobOrder } from "./api.js";
import { alertBar, announce, hideAlert } from "./dom.js";
import { JobRun } from "./jobs.js";
import { Progress } from "./progress.js";

const KEY = "ffavatar.job";

export interface MakerEvents {
  /** A first or a better version of the avatar is there. */
  news(news: AvatarNews): void;
  /** Began or ended. */
  changed(): void;
  /** It ended, with this avatar, where one came of it. */
  ended(avatar: string | undefined): void;
}

export class Maker {
  /** What the page shows of it. */
  progress: Progress | undefined;
  avatar: string | undefined;
  /** What the server said of each avatar made since the page was opened. */
  readonly notes = new Map<string, readonly string[]>();
  private run: JobRun | undefined;

  constructor(
    private readonly api: Api,
    private readonly on: MakerEvents,
  ) {}

  get busy(): boolean {
    return this.run !== undefined;
  }

  begin(order: JobOrder): void {
    const refining = order.kind === "personalize";
    this.attach(refining ? "Refining your avatar" : "Making your avatar", refining ? "Stop refining" : "Cancel");
    this.avatar = refining ? order.avatar : undefined;
    void this.run?.start(order);
    this.on.changed();
  }

  /** Goes on with what was under way when the page was left. */
  async resume(): Promise<void> {
    const id = localStorage.getItem(KEY);
    if (!id || this.busy) return;
    try {
      const job = await this.api.job(id);
      if (job.state !== "queued" && job.state !== "running") return localStorage.removeItem(KEY);
      this.attach(job.avatar ? "Refining your avatar" : "Making your avatar", job.avatar ? "Stop refining" : "Cancel");
      this.avatar = job.avatar ?? undefined;
      this.run?.follow(job);
      this.on.changed();
    } catch (error) {
      if (error instanceof ApiError) localStorage.removeItem(KEY); // the server knows it no longer
    }
  }

  private attach(title: string, stopLabel: string): void {
    hideAlert("making");
    const progress = new Progress(title, stopLabel, () => void this.cancel());
    this.progress = progress;
    const run = new JobRun(this.api, {
      waiting: (seconds) => progress.waiting(seconds),
      connected: (now) => progress.connected(now),
      job: (job) => {
        localStorage.setItem(KEY, job.id);
        progress.job(job);
      },
      avatar: (news) => {
        if (this.avatar === undefined) {
          progress.rename("Refining your avatar", "Stop refining");
          announce("The avatar is there.");
        }
        this.avatar = news.avatar;
        this.on.news(news);
      },
      ended: (job) => this.ended(job),
      failed: (error) => this.end(error.message),
    });
    this.run = run;
  }

  private async cancel(): Promise<void> {
    const { run } = this;
    const begun = run?.id !== undefined;
    try {
      await run?.cancel();
      if (!begun) this.end(undefined);
    } catch (error) {
      alertBar("making", `It could not be stopped. ${(error as Error).message}`);
    }
  }

  private ended(job: Job): void {
    if (job.avatar) {
      this.avatar = job.avatar;
      this.notes.set(job.avatar, job.notes ?? []);
    }
    if (job.state === "failed") this.end(job.error ?? "The avatar could not be made.");
    else {
      if (job.state === "cancelled") announce(this.avatar ? "Stopped. The avatar stays as it is." : "Cancelled.");
      else announce("Your avatar is ready.");
      this.end(undefined);
    }
  }

  private end(problem: string | undefined): void {
    localStorage.removeItem(KEY);
    this.run = undefined;
    this.progress = undefined;
    if (problem) alertBar("making", problem);
    const { avatar } = this;
    this.on.changed();
    this.on.ended(avatar);
  }
}
