/** The page's side of the worker: one pose under way at a time, the latest wish next. */

import source from "worker-source";
import { FileError } from "../core/container.js";
import type { Appearance } from "../core/detail.js";
import type { HeadParams } from "../core/params.js";
import { buffersOf } from "./messages.js";
import type { AvatarInfo, FromWorker, Matrix4x4, Posed, ToWorker } from "./messages.js";

export interface Handlers {
  appearance(level: number, appearance: Appearance): void;
  /** A frame; hand its arrays back with `recycle`. */
  posed(frame: Posed, workMs: number): void;
  failed(error: Error): void;
}

type Wish = { params: HeadParams; worldToCam: Matrix4x4 };

export class AvatarWorker {
  /** A pose is under way. */
  busy = false;
  private readonly worker: Worker;
  private readonly url: string;
  private loading: { resolve(info: AvatarInfo): void; reject(error: Error): void } | undefined;
  private wish: Wish | undefined;

  constructor(private readonly handlers: Handlers) {
    // from a blob, so that one file is the whole viewer and works from file:// too
    this.url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    this.worker = new Worker(this.url);
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.receive(data);
    this.worker.onerror = (event) => this.fail(new Error(`The viewer's worker stopped: ${event.message}.`));
  }

  /** Reads an avatar file (the buffer is taken over). Rejects with FileError. */
  load(buffer: ArrayBuffer, level: number): Promise<AvatarInfo> {
    this.loading?.reject(new FileError("Another avatar was opened instead."));
    this.busy = false;
    this.wish = undefined;
    return new Promise((resolve, reject) => {
      this.loading = { resolve, reject };
      this.send({ kind: "load", buffer, level }, [buffer]);
    });
  }

  setLevel(level: number): void {
    this.send({ kind: "level", level });
  }

  /** Asks for a pose; while one is under way, only the latest wish is kept. */
  pose(params: HeadParams, worldToCam: Matrix4x4): void {
    if (this.busy) {
      this.wish = { params, worldToCam };
      return;
    }
    this.busy = true;
    this.send({ kind: "pose", params, worldToCam });
  }

  recycle({ posed, order, colors }: Posed): void {
    this.send({ kind: "recycle", posed, order, colors }, buffersOf({ posed, order, colors }));
  }

  dispose(): void {
    this.worker.terminate();
    URL.revokeObjectURL(this.url);
  }

  private send(message: ToWorker, transfer: Transferable[] = []): void {
    this.worker.postMessage(message, transfer);
  }

  private receive(message: FromWorker): void {
    switch (message.kind) {
      case "loaded":
        this.loading?.resolve(message.info);
        this.loading = undefined;
        break;
      case "appearance":
        this.handlers.appearance(message.level, message.appearance);
        break;
      case "posed": {
        this.busy = false;
        const { wish } = this;
        this.wish = undefined;
        if (wish) this.pose(wish.params, wish.worldToCam); // the worker goes on while the page draws
        this.handlers.posed(message, message.workMs);
        break;
      }
      case "failed":
        this.fail(new FileError(message.message));
    }
  }

  private fail(error: Error): void {
    this.busy = false;
    const { loading } = this;
    this.loading = undefined;
    if (loading) loading.reject(error);
    else this.handlers.failed(error);
  }
}
