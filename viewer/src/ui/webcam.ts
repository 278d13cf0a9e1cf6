/**
 * Drives an avatar by the webcam. MediaPipe's face landmarker runs in the page, from files of the page's own origin; frames
 * go nowhere else.
 */

import { FileError } from "../core/container.js";
import { FaceDriver } from "../core/tracking.js";

/** The parts of `@mediapipe/tasks-vision@0.10.35` that are used here. */
interface Landmarker {
  detectForVideo(video: HTMLVideoElement, timestampMs: number): {
    readonly faceBlendshapes: readonly { readonly categories: readonly { categoryName: string; score: number }[] }[];
    readonly facialTransformationMatrixes: readonly { readonly data: ArrayLike<number> }[];
  };
  close(): void;
}
interface VisionModule {
  readonly FaceLandmarker: { createFromOptions(files: object, options: object): Promise<Landmarker> };
}

export type WebcamState = "off" | "starting" | "calibrating" | "driving" | "no face";

export interface WebcamEvents {
  values(values: Record<string, number>): void;
  state(state: WebcamState): void;
}

export class Webcam {
  readonly video = document.createElement("video");
  readonly driver = new FaceDriver();
  private landmarker: Landmarker | undefined;
  private stream: MediaStream | undefined;
  private frame = 0;
  private last = 0;
  private current: WebcamState = "off";

  /** `folder`: where `vision_bundle.mjs`, `wasm/` and `face_landmarker.task` lie, on the page's own origin. */
  constructor(
    private readonly folder: string,
    private readonly events: WebcamEvents,
  ) {
    Object.assign(this.video, { muted: true, playsInline: true });
  }

  get state(): WebcamState {
    return this.current;
  }

  /** Asks for the camera and begins. Rejects with a sentence when there is none, it is refused, or files are missing. */
  async start(): Promise<void> {
    if (this.current !== "off") return;
    this.change("starting");
    try {
      this.landmarker ??= await this.load();
      this.stream = await camera();
      this.video.srcObject = this.stream;
      await this.video.play();
      this.driver.calibrate();
      this.change("calibrating");
      this.frame = requestAnimationFrame(this.look);
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  stop(): void {
    cancelAnimationFrame(this.frame);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = undefined;
    this.video.srcObject = null;
    this.events.values({});
    this.change("off");
  }

  dispose(): void {
    if (this.current !== "off") this.stop();
    this.landmarker?.close();
    this.landmarker = undefined;
  }

  private change(state: WebcamState): void {
    if (state === this.current) return;
    this.current = state;
    this.events.state(state);
  }

  private async load(): Promise<Landmarker> {
    const base = new URL(this.folder.endsWith("/") ? this.folder : `${this.folder}/`, document.baseURI);
    if (base.origin !== location.origin) throw new FileError("The webcam's files must lie on this page's own server.");
    const file = (name: string): string => new URL(name, base).href;
    try {
      const { FaceLandmarker } = (await import(file("vision_bundle.mjs"))) as VisionModule;
      const files = {
        wasmLoaderPath: file("wasm/vision_wasm_internal.js"),
        wasmBinaryPath: file("wasm/vision_wasm_internal.wasm"),
      };
      return await FaceLandmarker.createFromOptions(files, {
        baseOptions: { modelAssetPath: file("face_landmarker.task"), delegate: "CPU" },
        runningMode: "VIDEO",
        numFaces: 1,
        outputFaceBlendshapes: true,
        outputFacialTransformationMatrixes: true,
      });
    } catch (error) {
      console.warn(error);
      throw new FileError("The webcam's files are not on this server or do not run here; see the viewer's README.");
    }
  }

  private readonly look = (now: number): void => {
    this.frame = requestAnimationFrame(this.look);
    const { video, landmarker } = this;
    if (!landmarker || video.readyState < 2 || now <= this.last) return;
    const seen = landmarker.detectForVideo(video, now);
    const seconds = this.last ? (now - this.last) / 1000 : 0;
    this.last = now;
    const [shapes] = seen.faceBlendshapes;
    const [matrix] = seen.facialTransformationMatrixes;
    if (!shapes || !matrix) {
      this.change("no face");
      return;
    }
    const scores = Object.fromEntries(shapes.categories.map(({ categoryName, score }) => [categoryName, score]));
    this.events.values(this.driver.next({ scores, matrix: matrix.data }, seconds));
    this.change(this.driver.isCalibrating ? "calibrating" : "driving");
  };
}

async function camera(): Promise<MediaStream> {
  if (!navigator.mediaDevices) throw new FileError("This page may not use a camera; open it over https or from localhost.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, facingMode: "user" }, audio: false });
  } catch (error) {
    const refused = (error as DOMException).name === "NotAllowedError";
    throw new FileError(refused ? "The camera was not allowed; allow it in the browser to use it." : "No camera was found.");
  }
}
