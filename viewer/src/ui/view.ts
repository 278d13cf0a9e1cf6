/** An avatar on a canvas: what is shown, from where, and when it is drawn again. No controls of its own. */

import { Orbit, type Camera } from "../core/camera.js";
import { addControls } from "../core/controls.js";
import { DETAIL_LEVELS, DetailGovernor } from "../core/detail.js";
import { addGaze, addIdle } from "../core/life.js";
import { poseAt, readMotion, type Motion } from "../core/motion.js";
import { copyParams, neutralParams, RESTING_DISTANCE_M, type HeadParams } from "../core/params.js";
import type { Vec3 } from "../core/rotation.js";
import { Skeleton } from "../core/skeleton.js";
import { Renderer, type Background, type Precision } from "../render/renderer.js";
import { AvatarWorker } from "../worker/client.js";
import type { AvatarInfo, Posed } from "../worker/messages.js";

export interface ViewEvents {
  /** The first picture of a newly opened avatar, or of a newer version of the one shown before, is on the canvas. */
  shown(info: AvatarInfo, updated: boolean): void;
  failed(error: Error): void;
  /** The clip moved to another time, started or stopped. */
  time(): void;
  /** Another level of detail is shown, with so many Gaussians. */
  level(level: number, gaussians: number): void;
}

/** Longest side of the picture in pixels: beyond, splats cost more than they show. */
const LARGEST_SIDE = 2048;
const GAZE_SPEED = 9; // per second

export class AvatarView {
  readonly values: Record<string, number> = {};
  idle = false;
  background: Background = [1, 1, 1, 1];
  speed = 1;
  loop = true;
  /** Draw all the time, for recordings. */
  continuous = false;
  orbit = new Orbit([0, 0, -RESTING_DISTANCE_M]);
  info: AvatarInfo | undefined;
  /** How many Gaussians are drawn. */
  gaussians = 0;
  motion: Motion | undefined;

  private readonly worker: AvatarWorker;
  private renderer: Renderer | undefined;
  private skeleton: Skeleton | undefined;
  private driven: Readonly<Record<string, number>> = {};
  private base: HeadParams | undefined;
  private playing = false;
  private position = 0;
  private life = 0;
  private gaze: { wanted: Vec3 | undefined; now: [number, number, number]; share: number };
  private governor: DetailGovernor | undefined;
  private currentLevel = DETAIL_LEVELS.length - 1;
  private shown: Posed | undefined;
  private waiting: Posed | undefined;
  private announce: "opened" | "updated" | undefined;
  private posesDirty = false;
  private drawDirty = false;
  private uploads = 0;
  private scheduled = 0;
  private lastTick = 0;
  private lastCamera: Camera | undefined;

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly events: ViewEvents,
    private readonly precision: Precision = "float16",
  ) {
    this.gaze = { wanted: undefined, now: [0, 0, 0], share: 0 };
    // first the worker: it starts while graphics block this thread
    this.worker = new AvatarWorker({
      appearance: (level, appearance) => {
        this.currentLevel = level;
        this.renderer?.setAppearance(appearance);
        this.shown = this.waiting = undefined;
        this.gaussians = appearance.count;
        this.events.level(level, appearance.count);
        this.invalidate();
      },
      posed: (frame) => {
        if (this.waiting) this.worker.recycle(this.waiting);
        this.waiting = frame;
        this.schedule();
      },
      failed: (error) => this.events.failed(error),
    });
    try {
      this.renderer = new Renderer(canvas, precision);
    } catch (error) {
      this.worker.dispose();
      throw error;
    }
    canvas.addEventListener("webglcontextlost", this.contextLost);
    canvas.addEventListener("webglcontextrestored", this.contextRestored);
  }

  private readonly contextLost = (event: Event): void => {
    event.preventDefault(); // asks the browser to give it back
    this.renderer = undefined;
  };

  private readonly contextRestored = (): void => {
    try {
      this.renderer = new Renderer(this.canvas, this.precision);
      if (this.info) this.worker.setLevel(this.currentLevel);
    } catch (error) {
      this.events.failed(error as Error);
    }
  };

  get level(): number {
    return this.currentLevel;
  }

  /**
   * Shows an avatar file; the buffer is taken over. `keep` makes it a newer version of the avatar shown: camera, sliders,
   * clip and pose stay as they are, unless it stands on another head. Rejects with FileError; what was shown stays.
   */
  async open(buffer: ArrayBuffer, keep = false): Promise<AvatarInfo> {
    const info = await this.worker.load(buffer, this.currentLevel);
    const updated = keep && this.info !== undefined && sameHead(this.info, info);
    this.info = info;
    this.skeleton = new Skeleton(info.joints, info.jointExpdirs);
    this.announce = updated && this.announce !== "opened" ? "updated" : "opened"; // one not drawn yet is still to be told of
    if (!updated) this.forget(info);
    this.invalidate();
    return info;
  }

  /** Camera, sliders, clip and pose as a newly opened avatar has them. */
  private forget(info: AvatarInfo): void {
    const [x, y, z] = info.middle;
    this.orbit = new Orbit([x, y, z - RESTING_DISTANCE_M]);
    this.motion = undefined;
    this.base = undefined;
    this.driven = {};
    this.playing = false;
    for (const name of Object.keys(this.values)) delete this.values[name];
  }

  /** The level of detail, or "auto" to follow the device's speed. */
  setDetail(detail: number | "auto"): void {
    const modest = matchMedia("(pointer: coarse)").matches || (navigator.hardwareConcurrency ?? 4) < 4;
    const level = detail === "auto" ? (modest ? 1 : DETAIL_LEVELS.length - 1) : detail;
    this.governor = detail === "auto" ? new DetailGovernor(level) : undefined;
    this.changeLevel(level);
  }

  private changeLevel(level: number): void {
    const before = this.info?.counts[this.currentLevel];
    this.currentLevel = level;
    if (this.info && this.info.counts[level] !== before) this.worker.setLevel(level);
    else this.events.level(level, this.gaussians);
  }

  /** Takes a parsed motion file, or none. Throws FileError. */
  setMotion(data: unknown): void {
    if (!this.info) throw new Error("open an avatar before its motion");
    this.motion = data === null || data === undefined ? undefined : readMotion(data, this.info);
    this.playing = false;
    this.seek(0);
  }

  get isPlaying(): boolean {
    return this.playing;
  }

  get time(): number {
    return this.position;
  }

  play(): void {
    if (!this.motion) return;
    if (this.position >= this.motion.seconds - 1e-6) this.position = 0;
    this.playing = true;
    this.changed();
  }

  pause(): void {
    this.playing = false;
    this.changed();
  }

  seek(seconds: number): void {
    this.position = Math.max(0, Math.min(this.motion?.seconds ?? 0, seconds));
    this.changed();
  }

  private changed(): void {
    this.events.time();
    this.invalidate();
  }

  /** Values by name (ARKit's, or the head's own), in place of those given before. Returns names it does not know. */
  setDriven(values: Readonly<Record<string, number>>): string[] {
    this.driven = { ...values };
    this.invalidate();
    return this.info ? addControls(this.info, values, neutralParams(this.info.expressionNames.length)) : [];
  }

  /** A whole pose in place of the resting one; undefined brings the resting one back. */
  setPose(params: HeadParams | undefined): void {
    this.base = params && copyParams(params);
    this.invalidate();
  }

  /** A point of the world for the eyes to follow, metres; undefined for none. */
  lookAt(point: Vec3 | undefined): void {
    if (point && this.gaze.share < 0.02) this.gaze.now = [...point];
    this.gaze.wanted = point;
    this.invalidate();
  }

  /** The pose that is to be shown now. */
  compose(): HeadParams | undefined {
    const { info } = this;
    if (!info) return undefined;
    const params = this.motion
      ? poseAt(this.motion, this.position)
      : copyParams(this.base ?? neutralParams(info.expressionNames.length));
    addControls(info, this.driven, params);
    addControls(info, this.values, params);
    if (this.idle) addIdle(params, info.expressionNames, this.life);
    if (this.gaze.share > 0.001 && this.skeleton) {
      const own = params.joints.slice(9);
      addGaze(this.skeleton, params, this.gaze.now);
      for (let k = 0; k < 6; k++) params.joints[9 + k] = own[k] + this.gaze.share * (params.joints[9 + k] - own[k]);
    }
    return params;
  }

  /** Something changed: pose and draw again. */
  invalidate(): void {
    this.posesDirty = true;
    this.schedule();
  }

  /** The camera of the present canvas. */
  camera(): Camera {
    return this.orbit.camera(this.canvas.width, this.canvas.height);
  }

  private schedule(): void {
    if (!this.scheduled) this.scheduled = requestAnimationFrame(this.tick);
  }

  private readonly tick = (now: number): void => {
    this.scheduled = 0;
    const elapsed = this.lastTick ? now - this.lastTick : 0;
    this.lastTick = now;
    this.fit();
    const moving = this.advance(Math.min(elapsed, 250) / 1000);
    if (this.posesDirty || moving) {
      const params = this.compose();
      if (params) this.worker.pose(params, this.camera().worldToCam);
      this.posesDirty = false;
      this.drawDirty = true; // the camera may have moved
    }
    if (this.waiting) {
      if (this.shown) this.worker.recycle(this.shown);
      this.shown = this.waiting;
      this.waiting = undefined;
      this.renderer?.setPose(this.shown.posed, this.shown.order, this.shown.colors);
      this.uploads++;
      this.drawDirty = true;
    }
    if ((this.drawDirty || this.continuous) && this.shown) this.draw();
    if (moving && elapsed) {
      const level = this.governor?.feed(elapsed);
      if (level !== undefined) this.changeLevel(level);
    }
    if (moving || this.continuous) this.schedule();
    else this.lastTick = 0;
  };

  /** Waits until the picture shows all that was asked for before. */
  async settled(): Promise<void> {
    const enough = this.uploads + 2; // one pose may be under way already, the next one is newer than this call
    do {
      await new Promise(requestAnimationFrame);
    } while (this.info && this.uploads < enough && (this.posesDirty || this.waiting || this.worker.busy));
  }

  /** Draws what is posed, now: also before a screenshot, which must follow in the same task. */
  draw(): void {
    this.drawDirty = false;
    this.lastCamera = this.camera();
    this.renderer?.draw(this.lastCamera, this.background);
    if (this.announce && this.shown && this.info) {
      const updated = this.announce === "updated";
      this.announce = undefined;
      this.events.shown(this.info, updated);
    }
  }

  /** Moves clocks and eyes on; whether anything moves by itself. */
  private advance(seconds: number): boolean {
    const { gaze, motion } = this;
    if (this.idle) this.life += seconds;
    if (this.playing && motion) {
      this.position += seconds * this.speed;
      if (this.position >= motion.seconds) {
        this.position = this.loop ? this.position % motion.seconds : motion.seconds;
        this.playing = this.loop;
      }
      this.events.time();
    }
    const part = 1 - Math.exp(-GAZE_SPEED * seconds);
    const share = gaze.wanted ? 1 : 0;
    gaze.share += part * (share - gaze.share);
    let turning = Math.abs(share - gaze.share) > 0.005;
    if (gaze.wanted)
      for (let k = 0; k < 3; k++) {
        const left = gaze.wanted[k] - gaze.now[k];
        gaze.now[k] += part * left;
        turning ||= Math.abs(left) > 5e-4;
      }
    return this.info !== undefined && (this.idle || this.playing || turning);
  }

  private fit(): void {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const { clientWidth, clientHeight } = this.canvas;
    const scale = Math.min(1, LARGEST_SIDE / Math.max(1, ratio * Math.max(clientWidth, clientHeight)));
    const width = Math.max(1, Math.round(clientWidth * ratio * scale));
    const height = Math.max(1, Math.round(clientHeight * ratio * scale));
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.drawDirty = true;
  }

  /** The nearest visible Gaussian at a place of the canvas, in its pixels; metres. */
  pick(x: number, y: number): [number, number, number] | undefined {
    const camera = this.lastCamera;
    if (!this.shown || !camera) return undefined;
    const { posed } = this.shown;
    const m = camera.worldToCam;
    const reach = 0.012 * Math.max(camera.width, camera.height);
    let best: [number, number, number] | undefined;
    let nearest = Infinity;
    for (let at = 0; at < posed.length; at += 8) {
      const [px, py, pz] = [posed[at], posed[at + 1], posed[at + 2]];
      const depth = m[8] * px + m[9] * py + m[10] * pz + m[11];
      if (depth < 0.01 || depth >= nearest) continue;
      const u = (camera.fx * (m[0] * px + m[1] * py + m[2] * pz + m[3])) / depth + camera.cx;
      const v = (camera.fy * (m[4] * px + m[5] * py + m[6] * pz + m[7])) / depth + camera.cy;
      if (Math.hypot(u - x, v - y) > reach) continue;
      nearest = depth;
      best = [px, py, pz];
    }
    return best;
  }

  /** The point of the world under a place of the canvas, `part` of the way from the camera to the head. */
  pointUnder(x: number, y: number, part = 0.5): [number, number, number] {
    const camera = this.camera();
    const m = camera.worldToCam;
    const depth = part * this.orbit.distance;
    const seen = [((x - camera.cx) / camera.fx) * depth - m[3], ((y - camera.cy) / camera.fy) * depth - m[7], depth - m[11]];
    return [0, 1, 2].map((k) => m[k] * seen[0] + m[4 + k] * seen[1] + m[8 + k] * seen[2]) as [number, number, number];
  }

  dispose(): void {
    cancelAnimationFrame(this.scheduled);
    this.canvas.removeEventListener("webglcontextlost", this.contextLost);
    this.canvas.removeEventListener("webglcontextrestored", this.contextRestored);
    this.worker.dispose();
    this.renderer?.dispose();
  }
}

/** Whether poses and clips of one avatar mean the same on the other. */
function sameHead(one: AvatarInfo, other: AvatarInfo): boolean {
  const names = other.expressionNames;
  return one.edition === other.edition && one.expressionNames.length === names.length && one.expressionNames.every((n, k) => n === names[k]);
}
