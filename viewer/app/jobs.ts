/** Starting a job, through a full queue and a lost connection, and following it over server-sent events. */

import { ApiError, newKey, OfflineError, type Api, type AvatarNews, type Job, type JobOrder } from "./api.js";

export interface JobEvents {
  /** The queue is full: asked again in so many seconds (0: now). */
  waiting(seconds: number): void;
  job(job: Job): void;
  avatar(news: AvatarNews): void;
  /** The events are cut off, or come again. */
  connected(now: boolean): void;
  /** The job ended, in whatever state; nothing follows. */
  ended(job: Job): void;
  /** It could not be started or followed; nothing follows. */
  failed(error: Error): void;
}

const FALLBACK_WAIT_S = 5;
const LONGEST_WAIT_S = 600;
const OFFLINE_WAIT_S = 2;
const REOPEN_MS = 1500;

export class JobRun {
  id: string | undefined;
  private events: EventSource | undefined;
  private readonly stopped = new AbortController();
  private over = false;
  private unwanted = false;

  constructor(
    private readonly api: Api,
    private readonly on: JobEvents,
  ) {}

  /** Starts a job and follows it. One press is one job: the same key is sent however often the request is repeated. */
  async start(order: JobOrder): Promise<void> {
    const key = newKey();
    const { signal } = this.stopped;
    while (!this.over) {
      try {
        const job = await this.api.createJob(order, key);
        if (this.unwanted) void this.api.cancelJob(job.id).catch(() => undefined); // cancelled while it was on its way
        else if (!this.over) this.follow(job);
        return;
      } catch (error) {
        if (this.over) return;
        if (error instanceof OfflineError) {
          this.on.connected(false);
          await pause(OFFLINE_WAIT_S, signal);
        } else if (error instanceof ApiError && error.status === 503) await this.countDown(error.retryAfter ?? FALLBACK_WAIT_S);
        else return this.fail(error as Error);
      }
    }
  }

  /** Follows a job that runs already. */
  follow(job: Job): void {
    this.id = job.id;
    this.on.connected(true);
    if (!this.news(job)) this.listen(job.id);
  }

  /** Stops it: in the queue, on its way, or running. */
  async cancel(): Promise<void> {
    if (this.id !== undefined) return this.api.cancelJob(this.id); // its end comes as an event
    this.unwanted = true;
    this.leave();
  }

  /** Follows it no longer; it goes on. */
  leave(): void {
    this.over = true;
    this.stopped.abort();
    this.events?.close();
  }

  private async countDown(seconds: number): Promise<void> {
    const until = Date.now() + 1000 * Math.min(LONGEST_WAIT_S, Math.max(1, seconds));
    while (!this.over) {
      const left = Math.ceil((until - Date.now()) / 1000);
      this.on.waiting(Math.max(0, left));
      if (left <= 0) return;
      await pause(1, this.stopped.signal);
    }
  }

  private listen(id: string): void {
    const events = this.api.eventsOf(id);
    this.events = events;
    const read = <T>(event: Event): T => JSON.parse((event as MessageEvent<string>).data) as T;
    events.onopen = () => this.on.connected(true);
    events.addEventListener("job", (event) => this.news(read<Job>(event)));
    events.addEventListener("avatar", (event) => this.on.avatar(read<AvatarNews>(event)));
    events.addEventListener("end", (event) => {
      if (!this.news(read<Job>(event))) void this.lookAgain(id);
    });
    events.onerror = () => {
      if (this.over) return;
      this.on.connected(false); // the browser tries again by itself, and says from where (Last-Event-ID)
      if (events.readyState === EventSource.CLOSED) void this.lookAgain(id);
    };
  }

  /** The browser gave up on the events: ask what became of the job, and listen anew. */
  private async lookAgain(id: string): Promise<void> {
    this.events?.close();
    while (!this.over) {
      await pause(REOPEN_MS / 1000, this.stopped.signal);
      try {
        await this.api.signInAgain(); // the cookie may be what is missing
        const job = await this.api.job(id);
        if (!this.over && !this.news(job)) this.listen(id);
        return;
      } catch (error) {
        if (!(error instanceof OfflineError)) return this.fail(error as Error);
      }
    }
  }

  /** Whether the job is over. */
  private news(job: Job): boolean {
    if (this.over) return true;
    this.on.job(job);
    if (job.state === "queued" || job.state === "running") return false;
    this.leave();
    this.on.ended(job);
    return true;
  }

  private fail(error: Error): void {
    if (this.over) return;
    this.leave();
    this.on.failed(error);
  }
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
