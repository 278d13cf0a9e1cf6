/**
 * Splatting as `ffavatar.render.rasterize` (gsplat 1.5.3) does it: covariance R S S R^T, EWA projection with the Jacobian
 * held 15 % of the picture outside its edge, eps2d 0.3, alpha clamped to 0.999, contributions below 1/255 skipped.
 * Compositing runs back to front; that a pixel stops at transmittance 1e-4 changes less than 1e-4 and is left out.
 */

/** Width of the textures that hold one or two texels a Gaussian. */
export const TEXTURE_WIDTH = 2048;

/** The body both renderers share: everything but the names of the three uniform matrices. */
export const VERTEX_SHADER = /* glsl */ `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;

uniform sampler2D posed;   // two texels a Gaussian: centre, quaternion wxyz
uniform sampler2D scales;  // one texel: standard deviations
uniform sampler2D colors;  // one texel: sRGB, opacity
uniform mat4 worldToCam;   // OpenCV axes
uniform vec4 intrinsics;   // fx, fy, cx, cy in pixels
uniform vec2 viewport;     // pixels

layout(location = 0) in vec2 corner;
layout(location = 1) in uint index;

out vec2 fromCentre;  // pixels
flat out vec3 conic;
flat out vec4 color;

const float NEAR = 0.01;
const float EPS2D = 0.3;
const float MARGIN = 0.15;
const int WIDTH = ${TEXTURE_WIDTH};

mat3 rotation(vec4 q) {  // wxyz; columns
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside: not drawn
  int i = int(index);
  color = texelFetch(colors, ivec2(i % WIDTH, i / WIDTH), 0);
  if (color.a < 1.0 / 255.0) return;
  int at = 2 * i;
  vec3 centre = texelFetch(posed, ivec2(at % WIDTH, at / WIDTH), 0).xyz;
  vec4 quat = normalize(texelFetch(posed, ivec2((at + 1) % WIDTH, at / WIDTH), 0));
  vec3 size = texelFetch(scales, ivec2(i % WIDTH, i / WIDTH), 0).xyz;

  vec3 seen = (worldToCam * vec4(centre, 1.0)).xyz;
  if (!(seen.z >= NEAR)) return;
  vec2 focal = intrinsics.xy, principal = intrinsics.zw;
  vec2 margin = MARGIN * viewport / focal;
  vec2 slope = clamp(seen.xy / seen.z, -principal / focal - margin, (viewport - principal) / focal + margin);
  mat3 turned = rotation(quat);
  mat3 shape = mat3(worldToCam) * mat3(turned[0] * size.x, turned[1] * size.y, turned[2] * size.z);
  vec2 across = focal / seen.z;
  // rows of J (W R S)
  vec3 rowX = across.x * (vec3(shape[0].x, shape[1].x, shape[2].x) - slope.x * vec3(shape[0].z, shape[1].z, shape[2].z));
  vec3 rowY = across.y * (vec3(shape[0].y, shape[1].y, shape[2].y) - slope.y * vec3(shape[0].z, shape[1].z, shape[2].z));
  float xx = dot(rowX, rowX) + EPS2D, xy = dot(rowX, rowY), yy = dot(rowY, rowY) + EPS2D;
  float det = xx * yy - xy * xy;
  if (!(det > 0.0)) return;
  conic = vec3(yy, -xy, xx) / det;

  // The ellipse on which alpha falls to 1/255 lies in this turned rectangle.
  float extent = sqrt(max(2.0 * log(255.0 * color.a), 0.0));
  float mean = 0.5 * (xx + yy), radius = length(vec2(0.5 * (xx - yy), xy));
  float longest = mean + radius, shortest = max(mean - radius, 0.0);
  vec2 along = abs(xy) < 1e-9 * mean ? (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(xy, longest - xx));
  fromCentre = extent * (corner.x * sqrt(longest) * along + corner.y * sqrt(shortest) * vec2(along.y, -along.x));
  fromCentre += corner * 0.01;  // rounding must not lose the pixel on the rim
  vec2 place = across * seen.xy + principal + fromCentre;
  vec2 ndc = 2.0 * place / viewport - 1.0;
  gl_Position = vec4(ndc.x, -ndc.y, 0.0, 1.0);
}`;

export const FRAGMENT_SHADER = /* glsl */ `#version 300 es
precision highp float;

in vec2 fromCentre;
flat in vec3 conic;
flat in vec4 color;
out vec4 result;  // premultiplied

void main() {
  vec2 d = fromCentre;
  float power = 0.5 * (conic.x * d.x * d.x + conic.z * d.y * d.y) + conic.y * d.x * d.y;
  float alpha = min(color.a * exp(-power), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(color.rgb * alpha, alpha);
}`;

/** The float picture over the background, to the canvas. */
export const RESOLVE_VERTEX = /* glsl */ `#version 300 es
void main() {
  vec2 place = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
  gl_Position = vec4(place, 0.0, 1.0);
}`;

export const RESOLVE_FRAGMENT = /* glsl */ `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D picture;
uniform vec4 background;  // premultiplied
out vec4 result;
void main() {
  vec4 seen = texelFetch(picture, ivec2(gl_FragCoord.xy), 0);
  result = seen + (1.0 - seen.a) * background;
}`;
