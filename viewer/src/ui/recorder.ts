/** Screenshots and WebM recordings of a view. */

import type { AvatarView } from "./view.js";

/** A PNG of all that was asked for, transparent where the background is. */
export async function screenshot(view: AvatarView): Promise<Blob> {
  await view.settled();
  view.draw(); // the drawing buffer is only kept until this task ends
  return new Promise((resolve, reject) => {
    view.canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture could not be taken."))), "image/png");
  });
}

export class Recorder {
  private recorder: MediaRecorder | undefined;

  constructor(private readonly view: AvatarView) {}

  get active(): boolean {
    return this.recorder !== undefined;
  }

  /** Begins. Throws where the browser cannot record a canvas. */
  start(): void {
    if (this.recorder) return;
    const types = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];
    const type = typeof MediaRecorder === "undefined" ? undefined : types.find((t) => MediaRecorder.isTypeSupported(t));
    if (!type || !this.view.canvas.captureStream) throw new Error("This browser cannot record WebM films.");
    const recorder = new MediaRecorder(this.view.canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 8e6 });
    recorder.start();
    this.recorder = recorder;
    this.view.continuous = true;
    this.view.invalidate();
  }

  /** Ends; the film. Rejects when nothing is being recorded. */
  stop(): Promise<Blob> {
    const { recorder } = this;
    if (!recorder) return Promise.reject(new Error("Nothing is being recorded."));
    this.recorder = undefined;
    this.view.continuous = false;
    return new Promise((resolve) => {
      const parts: Blob[] = [];
      recorder.ondataavailable = ({ data }) => parts.push(data);
      recorder.onstop = () => {
        recorder.stream.getTracks().forEach((track) => track.stop());
        resolve(new Blob(parts, { type: "video/webm" }));
      };
      recorder.stop();
    });
  }
}

/** Hands a file to the person at the page. */
export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
