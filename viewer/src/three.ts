/** An avatar as a three.js object. three.js is the page's own (a peer dependency). */

import {
  BufferAttribute,
  CustomBlending,
  DataTexture,
  DynamicDrawUsage,
  FloatType,
  GLSL3,
  InstancedBufferAttribute,
  InstancedBufferGeometry,
  Matrix4,
  Mesh,
  OneFactor,
  OneMinusSrcAlphaFactor,
  RawShaderMaterial,
  RGBAFormat,
  UnsignedByteType,
  Vector2,
  Vector4,
  type Camera,
  type Scene,
  type WebGLRenderer,
} from "three";
import { addControls } from "./core/controls.js";
import { DETAIL_LEVELS, type Appearance } from "./core/detail.js";
import { poseAt, readMotion, type Motion } from "./core/motion.js";
import { copyParams, neutralParams, type HeadParams } from "./core/params.js";
import { FRAGMENT_SHADER, TEXTURE_WIDTH, VERTEX_SHADER } from "./render/shaders.js";
import { AvatarWorker } from "./worker/client.js";
import type { AvatarInfo, Posed } from "./worker/messages.js";

/** three.js cameras look along -z with y up, OpenCV's along +z with y down. */
const FLIP = new Matrix4().makeScale(1, -1, -1);

function dataTexture(values: Float32Array | Uint8Array, perGaussian: number, count: number): DataTexture {
  const rows = Math.max(1, Math.ceil((perGaussian * count) / TEXTURE_WIDTH));
  const size = 4 * TEXTURE_WIDTH * rows;
  const real = values instanceof Float32Array;
  const data = real ? new Float32Array(size) : new Uint8Array(size);
  data.set(values);
  const texture = new DataTexture(data, TEXTURE_WIDTH, rows, RGBAFormat, real ? FloatType : UnsignedByteType);
  texture.needsUpdate = true;
  return texture;
}

/**
 * A mesh in metres: y up, face towards +z, standing 1.15 m behind its own origin as in the normalised camera, unless
 * `centred` (then the resting head's `translation` is 0). Splats are drawn in scene order without depth test; colours are
 * sRGB, so render to an sRGB-agnostic target (`renderer.outputColorSpace = LinearSRGBColorSpace`) or expect a shift.
 */
export class FFAvatarObject extends Mesh<InstancedBufferGeometry, RawShaderMaterial> {
  readonly info: AvatarInfo;
  /** Named values added to the pose, see `setARKit`. */
  values: Readonly<Record<string, number>> = {};
  private readonly worker: AvatarWorker;
  private motion: Motion | undefined;
  private time = 0;
  private base: HeadParams;
  private readonly seenFrom = new Matrix4();
  private lastWish = "";
  private dirty = true;

  /** Reads an avatar file (the buffer is taken over). Rejects with FileError. */
  static async load(
    buffer: ArrayBuffer,
    options: { level?: 0 | 1 | 2; centred?: boolean } = {},
  ): Promise<FFAvatarObject> {
    let made: FFAvatarObject | undefined;
    let first: Appearance | undefined;
    const worker = new AvatarWorker({
      appearance: (_, appearance) => (made ? made.setAppearance(appearance) : (first = appearance)),
      posed: (frame) => {
        made?.setPosed(frame);
        worker.recycle(frame);
      },
      failed: (error) => made?.dispatchEvent({ type: "error", error } as never),
    });
    try {
      const info = await worker.load(buffer, options.level ?? DETAIL_LEVELS.length - 1);
      made = new FFAvatarObject(worker, info, options.centred ?? true);
      if (first) made.setAppearance(first);
      return made;
    } catch (error) {
      worker.dispose();
      throw error;
    }
  }

  private constructor(worker: AvatarWorker, info: AvatarInfo, centred: boolean) {
    const geometry = new InstancedBufferGeometry();
    geometry.setAttribute("corner", new BufferAttribute(Float32Array.of(-1, -1, 1, -1, 1, 1, -1, 1), 2));
    geometry.setIndex([0, 1, 2, 0, 2, 3]);
    geometry.instanceCount = 0;
    const uniform = <T>(value: T): { value: T } => ({ value });
    const material = new RawShaderMaterial({
      glslVersion: GLSL3,
      vertexShader: VERTEX_SHADER.replace("#version 300 es\n", "").replaceAll(/layout\(location = \d\) /g, ""),
      fragmentShader: FRAGMENT_SHADER.replace("#version 300 es\n", ""),
      transparent: true,
      depthTest: false,
      depthWrite: false,
      side: 2,
      blending: CustomBlending,
      blendSrc: OneFactor,
      blendDst: OneMinusSrcAlphaFactor,
      premultipliedAlpha: true,
      uniforms: {
        posed: uniform<DataTexture | null>(null),
        scales: uniform<DataTexture | null>(null),
        colors: uniform<DataTexture | null>(null),
        worldToCam: uniform(new Matrix4()),
        intrinsics: uniform(new Vector4()),
        viewport: uniform(new Vector2()),
      },
    });
    super(geometry, material);
    this.worker = worker;
    this.info = info;
    this.base = neutralParams(info.expressionNames.length);
    if (centred) this.base.translation.fill(0);
    this.frustumCulled = false;
    this.onBeforeRender = (renderer, scene, camera) => this.prepare(renderer, scene, camera);
  }

  /** A parsed motion file, or null. Its translations are taken relative to the resting head when `centred`. */
  setMotion(data: unknown): void {
    this.motion = data === null ? undefined : readMotion(data, this.info);
    this.time = 0;
    this.dirty = true;
  }

  /** ARKit's 52 values and the other names of `controlsOf`. Returns unknown names. */
  setARKit(values: Readonly<Record<string, number>>): string[] {
    this.values = { ...values };
    this.dirty = true;
    return addControls(this.info, values, neutralParams(this.info.expressionNames.length));
  }

  /** Moves the clip on. */
  update(seconds: number): void {
    if (!this.motion) return;
    this.time = (this.time + seconds) % this.motion.seconds;
    this.dirty = true;
  }

  private compose(): HeadParams {
    const params = this.motion ? poseAt(this.motion, this.time) : copyParams(this.base);
    if (this.motion && this.base.translation[2] === 0) params.translation[2] += 1.15;
    addControls(this.info, this.values, params);
    return params;
  }

  private setAppearance({ count, scales, colors }: Appearance): void {
    const { uniforms } = this.material;
    for (const name of ["posed", "scales", "colors"]) (uniforms[name].value as DataTexture | null)?.dispose();
    uniforms["scales"].value = dataTexture(scales, 1, count);
    uniforms["colors"].value = dataTexture(colors, 1, count);
    uniforms["posed"].value = dataTexture(new Float32Array(8 * count), 2, count);
    const order = new InstancedBufferAttribute(new Uint32Array(count), 1);
    order.setUsage(DynamicDrawUsage);
    this.geometry.setAttribute("index", order);
    this.geometry.instanceCount = 0; // until the first pose
    this.dirty = true;
  }

  private setPosed({ posed, order, colors }: Posed): void {
    const changed = colors ? { posed, colors } : { posed };
    for (const [name, values] of Object.entries(changed)) {
      const texture = this.material.uniforms[name].value as DataTexture;
      (texture.image.data as unknown as Float32Array | Uint8Array).set(values);
      texture.needsUpdate = true;
    }
    const attribute = this.geometry.getAttribute("index") as InstancedBufferAttribute;
    attribute.array.set(order);
    attribute.needsUpdate = true;
    this.geometry.instanceCount = order.length;
  }

  private prepare(renderer: WebGLRenderer, _scene: Scene, camera: Camera): void {
    const { uniforms } = this.material;
    const size = renderer.getDrawingBufferSize(uniforms["viewport"].value as Vector2);
    this.seenFrom.multiplyMatrices(camera.matrixWorldInverse, this.matrixWorld).premultiply(FLIP);
    (uniforms["worldToCam"].value as Matrix4).copy(this.seenFrom);
    const p = camera.projectionMatrix.elements;
    (uniforms["intrinsics"].value as Vector4).set(
      (p[0] * size.x) / 2,
      (p[5] * size.y) / 2,
      ((1 - p[8]) * size.x) / 2,
      ((1 + p[9]) * size.y) / 2,
    );
    const worldToCam = this.seenFrom.clone().transpose().elements; // row-major
    const wish = [0, 1, 2, 4, 5, 6, 8, 9, 10].map((i) => worldToCam[i].toFixed(4)).join();
    if (!this.dirty && wish === this.lastWish) return;
    this.dirty = false;
    this.lastWish = wish;
    this.worker.pose(this.compose(), worldToCam);
  }

  /** Ends the worker and gives the graphics memory back. */
  override dispose(): void {
    this.worker.dispose();
    for (const { value } of Object.values(this.material.uniforms)) if (value instanceof DataTexture) value.dispose();
    this.geometry.dispose();
    this.material.dispose();
  }
}

