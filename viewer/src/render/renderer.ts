/** Draws posed Gaussians with WebGL2. */

import type { Camera } from "../core/camera.js";
import type { Appearance } from "../core/detail.js";
import { FRAGMENT_SHADER, RESOLVE_FRAGMENT, RESOLVE_VERTEX, TEXTURE_WIDTH, VERTEX_SHADER } from "./shaders.js";

/** What blending rounds to: half floats where the device can draw to them, else bytes. */
export type Precision = "float32" | "float16" | "byte";

/** WebGL2 is missing or refused. The message is one sentence for the person at the page. */
export class GraphicsError extends Error {
  override readonly name = "GraphicsError";
}

/** sRGB and opacity in [0, 1]. */
export type Background = readonly [number, number, number, number];

interface Target {
  readonly framebuffer: WebGLFramebuffer;
  readonly texture: WebGLTexture;
  width: number;
  height: number;
}

export class Renderer {
  readonly gl: WebGL2RenderingContext;
  readonly precision: Precision;
  private readonly program: WebGLProgram;
  private readonly resolve: WebGLProgram;
  private readonly uniforms: Record<string, WebGLUniformLocation | null>;
  private readonly resolveUniforms: Record<string, WebGLUniformLocation | null>;
  private readonly textures: { posed: WebGLTexture; scales: WebGLTexture; colors: WebGLTexture };
  private readonly orderBuffer: WebGLBuffer;
  private readonly arrays: WebGLVertexArrayObject;
  private readonly empty: WebGLVertexArrayObject;
  private readonly target: Target | undefined;
  private count = 0;
  private ready = false;

  /** Throws GraphicsError where there is no WebGL2. `precision` is the best to use; the default suits every device. */
  constructor(
    readonly canvas: HTMLCanvasElement | OffscreenCanvas,
    precision: Precision = "float16",
  ) {
    const options = { alpha: true, premultipliedAlpha: true, antialias: false, depth: false, stencil: false };
    const gl = canvas.getContext("webgl2", options) as WebGL2RenderingContext | null;
    if (!gl)
      throw new GraphicsError(
        "This browser shows no WebGL2 graphics, which the avatar needs; use a current browser with hardware acceleration on.",
      );
    this.gl = gl;
    this.precision = supported(gl, precision);
    this.program = link(gl, VERTEX_SHADER, FRAGMENT_SHADER);
    this.resolve = link(gl, RESOLVE_VERTEX, RESOLVE_FRAGMENT);
    const locate = (program: WebGLProgram, names: string[]): Record<string, WebGLUniformLocation | null> =>
      Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(program, name)]));
    const names = ["posed", "scales", "colors", "worldToCam", "intrinsics", "viewport"];
    this.uniforms = locate(this.program, names);
    this.resolveUniforms = locate(this.resolve, ["picture", "background"]);
    this.textures = { posed: texture(gl), scales: texture(gl), colors: texture(gl) };
    this.orderBuffer = gl.createBuffer();
    this.arrays = this.quads();
    this.empty = gl.createVertexArray();
    this.target =
      this.precision === "byte"
        ? undefined
        : { framebuffer: gl.createFramebuffer(), texture: texture(gl), width: 0, height: 0 };
  }

  private quads(): WebGLVertexArrayObject {
    const { gl } = this;
    const arrays = gl.createVertexArray();
    gl.bindVertexArray(arrays);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, Float32Array.of(-1, -1, 1, -1, -1, 1, 1, 1), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.orderBuffer);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(1, 1);
    gl.bindVertexArray(null);
    return arrays;
  }

  /** Takes the Gaussians of another avatar or level of detail; nothing is drawn until `setPose`. */
  setAppearance(appearance: Appearance): void {
    const { gl } = this;
    this.count = appearance.count;
    this.ready = false;
    allocate(gl, this.textures.posed, gl.RGBA32F, 2 * this.count);
    allocate(gl, this.textures.scales, gl.RGBA32F, this.count);
    allocate(gl, this.textures.colors, gl.RGBA8, this.count);
    upload(gl, this.textures.scales, gl.FLOAT, appearance.scales, this.count);
    upload(gl, this.textures.colors, gl.UNSIGNED_BYTE, appearance.colors, this.count);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.orderBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, 4 * this.count, gl.DYNAMIC_DRAW);
  }

  /**
   * Takes a pose, (n, 8) centre, 0, quaternion, together with its order, farthest first, and, where they follow the pose,
   * its colours, (n, 4) bytes.
   */
  setPose(posed: Float32Array, order: Uint32Array, colors?: Uint8Array): void {
    const { gl } = this;
    if (order.length !== this.count || posed.length !== 8 * this.count) throw new Error("the pose is of other Gaussians");
    upload(gl, this.textures.posed, gl.FLOAT, posed, 2 * this.count);
    if (colors) upload(gl, this.textures.colors, gl.UNSIGNED_BYTE, colors, this.count);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.orderBuffer);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
    this.ready = true;
  }

  /** Draws the picture; the canvas must have the camera's size. */
  draw(camera: Camera, background: Background): void {
    const { gl } = this;
    const { width, height } = camera;
    const [red, green, blue, opacity] = background;
    const behind = [red * opacity, green * opacity, blue * opacity, opacity] as const;
    gl.viewport(0, 0, width, height);
    if (this.target) {
      this.fit(this.target, width, height);
      gl.bindFramebuffer(gl.FRAMEBUFFER, this.target.framebuffer);
      gl.clearColor(0, 0, 0, 0);
    } else {
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.clearColor(...behind);
    }
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (this.ready) this.drawSplats(camera);
    if (!this.target) return;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(this.resolve);
    gl.disable(gl.BLEND);
    bind(gl, 0, this.target.texture, this.resolveUniforms["picture"]);
    gl.uniform4f(this.resolveUniforms["background"], ...behind);
    gl.bindVertexArray(this.empty);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.bindVertexArray(null);
  }

  private drawSplats({ worldToCam, fx, fy, cx, cy, width, height }: Camera): void {
    const { gl, uniforms } = this;
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.disable(gl.CULL_FACE);
    bind(gl, 0, this.textures.posed, uniforms["posed"]);
    bind(gl, 1, this.textures.scales, uniforms["scales"]);
    bind(gl, 2, this.textures.colors, uniforms["colors"]);
    gl.uniformMatrix4fv(uniforms["worldToCam"], true, Float32Array.from(worldToCam));
    gl.uniform4f(uniforms["intrinsics"], fx, fy, cx, cy);
    gl.uniform2f(uniforms["viewport"], width, height);
    gl.bindVertexArray(this.arrays);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
    gl.bindVertexArray(null);
  }

  private fit(target: Target, width: number, height: number): void {
    if (target.width === width && target.height === height) return;
    const { gl } = this;
    const format = this.precision === "float32" ? gl.RGBA32F : gl.RGBA16F;
    const type = this.precision === "float32" ? gl.FLOAT : gl.HALF_FLOAT;
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, target.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, format, width, height, 0, gl.RGBA, type, null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.texture, 0);
    target.width = width;
    target.height = height;
  }

  /** The picture just drawn, before the background: (H, W, 4) premultiplied, top row first. Slow; for tests. */
  readPicture(width: number, height: number): Float32Array {
    const { gl } = this;
    const rows = new Float32Array(4 * width * height);
    if (this.target) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, this.target.framebuffer);
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, rows);
    } else {
      const bytes = new Uint8Array(rows.length);
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
      for (let i = 0; i < rows.length; i++) rows[i] = bytes[i] / 255;
    }
    const flipped = new Float32Array(rows.length);
    for (let y = 0; y < height; y++)
      flipped.set(rows.subarray(4 * width * (height - 1 - y), 4 * width * (height - y)), 4 * width * y);
    return flipped;
  }

  /** Gives the graphics memory back. */
  dispose(): void {
    const { gl } = this;
    Object.values(this.textures).forEach((t) => gl.deleteTexture(t));
    gl.deleteBuffer(this.orderBuffer);
    gl.deleteProgram(this.program);
    gl.deleteProgram(this.resolve);
    if (this.target) {
      gl.deleteTexture(this.target.texture);
      gl.deleteFramebuffer(this.target.framebuffer);
    }
  }
}

function supported(gl: WebGL2RenderingContext, wanted: Precision): Precision {
  const full = gl.getExtension("EXT_color_buffer_float");
  if (wanted === "float32" && full && gl.getExtension("EXT_float_blend")) return "float32";
  if (wanted !== "byte" && (full || gl.getExtension("EXT_color_buffer_half_float"))) return "float16";
  return "byte";
}

function texture(gl: WebGL2RenderingContext): WebGLTexture {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  return made;
}

function allocate(gl: WebGL2RenderingContext, made: WebGLTexture, format: number, texels: number): void {
  const type = format === gl.RGBA8 ? gl.UNSIGNED_BYTE : gl.FLOAT;
  const rows = Math.max(1, Math.ceil(texels / TEXTURE_WIDTH));
  gl.activeTexture(gl.TEXTURE0);
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texImage2D(gl.TEXTURE_2D, 0, format, TEXTURE_WIDTH, rows, 0, gl.RGBA, type, null);
}

/** Four numbers a texel; whole rows first, then what is left of the last one. */
function upload(
  gl: WebGL2RenderingContext,
  made: WebGLTexture,
  type: number,
  values: Float32Array | Uint8Array,
  texels: number,
): void {
  const rows = Math.floor(texels / TEXTURE_WIDTH);
  const rest = texels - rows * TEXTURE_WIDTH;
  gl.activeTexture(gl.TEXTURE0);
  gl.bindTexture(gl.TEXTURE_2D, made);
  if (rows) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, TEXTURE_WIDTH, rows, gl.RGBA, type, values, 0);
  if (rest) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, rows, rest, 1, gl.RGBA, type, values, 4 * rows * TEXTURE_WIDTH);
}

function bind(gl: WebGL2RenderingContext, unit: number, made: WebGLTexture, place: WebGLUniformLocation | null): void {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.uniform1i(place, unit);
}

function link(gl: WebGL2RenderingContext, vertex: string, fragment: string): WebGLProgram {
  const program = gl.createProgram();
  const sources = [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]] as const;
  for (const [kind, source] of sources) {
    const shader = gl.createShader(kind);
    if (!shader) throw new GraphicsError("The graphics context was lost; reload the page.");
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    gl.deleteShader(shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost())
    throw new GraphicsError(`The graphics driver refused a shader (${gl.getProgramInfoLog(program) ?? "no reason"}).`);
  return program;
}
