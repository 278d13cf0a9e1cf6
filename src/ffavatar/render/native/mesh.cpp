// Triangle z-buffer and deferred shading for the synthetic people: plain C ABI, no dependency, deterministic.
//
// Pictures are split into bands of rows, one per thread, so no two threads write one pixel and the result does not depend
// on the number of threads. Arrays are C-contiguous; see render/mesh.py, which documents the shapes and calls these.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "export.h"
#include "parallel.h"

namespace {

// One row of the material table of render/mesh.py (`_MATERIAL_COLUMNS`).
struct Material {
  float tint[3];
  float specular, gloss, wrap, environment, cutout, softness;
};
static_assert(sizeof(Material) == 9 * sizeof(float), "the material table has nine float columns");

struct Texture {
  const uint8_t* rgba = nullptr;  // (height, width, 4), row 0 is v = 1
  int width = 0, height = 0;
};

inline int wrap_index(int i, int n) {
  i %= n;
  return i < 0 ? i + n : i;
}

// Bilinear weights and the four texel offsets of a repeating texture.
struct Bilinear {
  const uint8_t* texel[4];
  float weight[4];
  Bilinear(const Texture& t, float u, float v) {
    const float x = u * t.width - 0.5f, y = (1.0f - v) * t.height - 0.5f;
    const float fx = std::floor(x), fy = std::floor(y);
    const float ax = x - fx, ay = y - fy;
    const int x0 = wrap_index(static_cast<int>(fx), t.width), x1 = x0 + 1 == t.width ? 0 : x0 + 1;
    const int y0 = wrap_index(static_cast<int>(fy), t.height), y1 = y0 + 1 == t.height ? 0 : y0 + 1;
    const int64_t stride = static_cast<int64_t>(t.width) * 4;
    texel[0] = t.rgba + y0 * stride + x0 * 4;
    texel[1] = t.rgba + y0 * stride + x1 * 4;
    texel[2] = t.rgba + y1 * stride + x0 * 4;
    texel[3] = t.rgba + y1 * stride + x1 * 4;
    weight[0] = (1 - ax) * (1 - ay);
    weight[1] = ax * (1 - ay);
    weight[2] = (1 - ax) * ay;
    weight[3] = ax * ay;
  }
  float channel(int c) const {
    return texel[0][c] * weight[0] + texel[1][c] * weight[1] + texel[2][c] * weight[2] + texel[3][c] * weight[3];
  }
};

// sRGB bytes to linear light; 2.2 instead of the piecewise curve, the inverse of what the picture is encoded with.
struct GammaTable {
  float value[256];
  GammaTable() {
    for (int i = 0; i < 256; ++i) value[i] = std::pow(i / 255.0f, 2.2f);
  }
};
const GammaTable kGamma;

template <class Body>
void in_bands(int rows, int threads, const Body& body) {
    threads = std::max(1, std::min(threads, rows));
    ffa::parallel_for(threads, rows, (rows + threads - 1) / threads, [&body](int first, int last) { body(first, last); });
}

inline float dot(const float* a, const float* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

inline float fifth_power(float x) {
    const float square = x * x;
    return square * square * x;
}

inline void normalise(float* a) {
  const float n = std::sqrt(std::max(dot(a, a), 1e-20f));
  for (int k = 0; k < 3; ++k) a[k] /= n;
}

// The nine real spherical-harmonic polynomials, in the order of render/mesh.py's `sh_basis` (constants in the coefficients).
inline void sh_evaluate(const float* sh, const float* n, float* out) {
  const float x = n[0], y = n[1], z = n[2];
  const float basis[9] = {1, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y};
  for (int c = 0; c < 3; ++c) {
    float sum = 0;
    for (int k = 0; k < 9; ++k) sum += basis[k] * sh[k * 3 + c];
    out[c] = std::max(sum, 0.0f);
  }
}

// Offsets of the cut-out threshold at the 2x2 samples of a pixel: a half-transparent hair covers half of the samples.
const float kThreshold[4] = {-0.3f, 0.1f, 0.3f, -0.1f};

// Fraction of a 3x3 neighbourhood of the shadow map that lies nearer to the light than the point.
inline float shadowed(const float* map, int size, const float* matrix, const float* p) {
  const float x = dot(matrix, p) + matrix[3], y = dot(matrix + 4, p) + matrix[7];
  const float z = dot(matrix + 8, p) + matrix[11];
  const float fx = std::floor(x - 0.5f), fy = std::floor(y - 0.5f);
  const float ax = x - 0.5f - fx, ay = y - 0.5f - fy;
  const int x0 = static_cast<int>(fx), y0 = static_cast<int>(fy);
  if (x0 < 1 || y0 < 1 || x0 + 2 >= size || y0 + 2 >= size) return 0;
  const float wx[4] = {1 - ax, 1, 1, ax}, wy[4] = {1 - ay, 1, 1, ay};
  float sum = 0;
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 4; ++i)
      sum += map[static_cast<int64_t>(y0 - 1 + j) * size + x0 - 1 + i] < z ? wx[i] * wy[j] : 0.0f;
  return sum / 9;
}

}  // namespace

// Area-weighted vertex normals.
FFA_EXPORT void ffa_mesh_normals(const float* vertices, int64_t vertex_count, const int32_t* faces, int64_t face_count,
                                 float* normals) {
  std::fill(normals, normals + vertex_count * 3, 0.0f);
  for (int64_t f = 0; f < face_count; ++f) {
    const float *a = vertices + 3 * faces[3 * f], *b = vertices + 3 * faces[3 * f + 1], *c = vertices + 3 * faces[3 * f + 2];
    const float e[3] = {b[0] - a[0], b[1] - a[1], b[2] - a[2]}, g[3] = {c[0] - a[0], c[1] - a[1], c[2] - a[2]};
    const float n[3] = {e[1] * g[2] - e[2] * g[1], e[2] * g[0] - e[0] * g[2], e[0] * g[1] - e[1] * g[0]};
    for (int k = 0; k < 3; ++k)
      for (int i = 0; i < 3; ++i) normals[3 * faces[3 * f + k] + i] += n[i];
  }
  for (int64_t v = 0; v < vertex_count; ++v) normalise(normals + 3 * v);
}

// Nearest triangle per pixel centre. corners: (T, 3, 3) x px, y px, depth; face -1 and depth infinity where nothing is.
// Barycentrics are perspective correct unless `orthographic`. Cut-out materials are tested against their texture's alpha.
FFA_EXPORT void ffa_mesh_rasterize(const float* corners, int64_t face_count, int32_t width, int32_t height, float near_depth,
                                   int32_t orthographic, const float* uvs, const int32_t* face_material,
                                   const float* materials, const uint64_t* texture_pointers, const int32_t* texture_sizes,
                                   int32_t threads, int32_t* face_out, float* barycentric_out, float* depth_out) {
  const Material* material_table = reinterpret_cast<const Material*>(materials);
  in_bands(height, threads, [&](int first_row, int last_row) {
    const int64_t start = static_cast<int64_t>(first_row) * width, end = static_cast<int64_t>(last_row) * width;
    std::fill(face_out + start, face_out + end, -1);
    std::fill(depth_out + start, depth_out + end, std::numeric_limits<float>::infinity());
    std::fill(barycentric_out + start * 3, barycentric_out + end * 3, 0.0f);
    for (int64_t f = 0; f < face_count; ++f) {
      const float* t = corners + f * 9;
      const float x0 = t[0], y0 = t[1], z0 = t[2], x1 = t[3], y1 = t[4], z1 = t[5], x2 = t[6], y2 = t[7], z2 = t[8];
      if (!(z0 > near_depth && z1 > near_depth && z2 > near_depth)) continue;
      const float low_y = std::min({y0, y1, y2}), high_y = std::max({y0, y1, y2});
      const float low_x = std::min({x0, x1, x2}), high_x = std::max({x0, x1, x2});
      if (!(high_y > first_row && low_y < last_row && high_x > 0 && low_x < width)) continue;
      const int row_a = std::max(first_row, static_cast<int>(std::ceil(low_y - 0.5f)));
      const int row_b = std::min(last_row - 1, static_cast<int>(std::floor(high_y - 0.5f)));
      const int col_a = std::max(0, static_cast<int>(std::ceil(std::max(low_x, -1.0f) - 0.5f)));
      const int col_b = static_cast<int>(std::floor(std::min(high_x, width + 1.0f) - 0.5f));
      const int col_last = std::min(width - 1, col_b);
      if (row_a > row_b || col_a > col_last) continue;
      const double area = (double(x1) - x0) * (double(y2) - y0) - (double(x2) - x0) * (double(y1) - y0);
      if (!(std::abs(area) > 1e-12)) continue;
      const double inverse = 1.0 / area;
      // b1 and b2 are affine in the pixel position, taken from the first corner.
      const float b1x = float((double(y2) - y0) * inverse), b1y = float(-(double(x2) - x0) * inverse);
      const float b2x = float(-(double(y1) - y0) * inverse), b2y = float((double(x1) - x0) * inverse);
      const float i0 = 1 / z0, i1 = 1 / z1, i2 = 1 / z2;
      const int m = face_material ? face_material[f] : -1;
      const bool cutout = m >= 0 && material_table[m].cutout > 0 && texture_pointers[m] != 0;
      Texture texture;
      if (cutout) texture = {reinterpret_cast<const uint8_t*>(texture_pointers[m]), texture_sizes[2 * m], texture_sizes[2 * m + 1]};
      for (int row = row_a; row <= row_b; ++row) {
        const float py = row + 0.5f - y0;
        for (int col = col_a; col <= col_last; ++col) {
          const float px = col + 0.5f - x0;
          const float s1 = b1x * px + b1y * py, s2 = b2x * px + b2y * py, s0 = 1 - s1 - s2;
          if (s0 < -1e-6f || s1 < -1e-6f || s2 < -1e-6f) continue;
          const int64_t at = static_cast<int64_t>(row) * width + col;
          float z, b0, b1, b2;
          if (orthographic) {
            z = s0 * z0 + s1 * z1 + s2 * z2;
            b0 = s0, b1 = s1, b2 = s2;
          } else {
            z = 1 / (s0 * i0 + s1 * i1 + s2 * i2);
            b0 = s0 * i0 * z, b1 = s1 * i1 * z, b2 = s2 * i2 * z;
          }
          if (!(z < depth_out[at])) continue;
          if (cutout) {
            const float* uv = uvs + f * 6;
            const Bilinear sample(texture, b0 * uv[0] + b1 * uv[2] + b2 * uv[4], b0 * uv[1] + b1 * uv[3] + b2 * uv[5]);
            const float limit = material_table[m].cutout + kThreshold[((row & 1) * 2 + (col & 1)) ^ (m & 3)] * material_table[m].softness;
            if (sample.channel(3) * (1 / 255.0f) < limit) continue;
          }
          face_out[at] = static_cast<int32_t>(f);
          depth_out[at] = z;
          barycentric_out[at * 3] = b0;
          barycentric_out[at * 3 + 1] = b1;
          barycentric_out[at * 3 + 2] = b2;
        }
      }
    }
  });
}

// Linear premultiplied RGBA (H, W, 4) of rasterised fragments: ambient spherical harmonics times occlusion, directional
// lights with coloured wrap (cheap subsurface light), Blinn highlights and shadow maps, and a Fresnel reflection of the
// ambient light.
FFA_EXPORT void ffa_mesh_shade(int32_t width, int32_t height, const int32_t* face_index, const float* barycentric,
                               const float* vertices, const float* normals, const float* occlusion, const int32_t* faces,
                               const float* uvs, const int32_t* face_material, const float* materials,
                               const uint64_t* texture_pointers, const int32_t* texture_sizes, const float* sh,
                               int32_t light_count, const float* light_directions, const float* light_colors,
                               const float* shadow_maps, const float* shadow_matrices, int32_t shadow_size,
                               const float* eye, int32_t threads, float* out) {
  const Material* material_table = reinterpret_cast<const Material*>(materials);
  const float kWrap[3] = {1.2f, 0.5f, 0.3f};  // red light travels farthest under skin
  in_bands(height, threads, [&](int first_row, int last_row) {
    for (int64_t at = static_cast<int64_t>(first_row) * width; at < static_cast<int64_t>(last_row) * width; ++at) {
      float* pixel = out + at * 4;
      const int32_t f = face_index[at];
      if (f < 0) {
        pixel[0] = pixel[1] = pixel[2] = pixel[3] = 0;
        continue;
      }
      const float* b = barycentric + at * 3;
      const int32_t* corner = faces + f * 3;
      float p[3] = {0, 0, 0}, n[3] = {0, 0, 0}, ao = 0;
      for (int k = 0; k < 3; ++k) {
        for (int i = 0; i < 3; ++i) {
          p[i] += b[k] * vertices[3 * corner[k] + i];
          n[i] += b[k] * normals[3 * corner[k] + i];
        }
        ao += b[k] * occlusion[corner[k]];
      }
      normalise(n);
      float view[3] = {eye[0] - p[0], eye[1] - p[1], eye[2] - p[2]};
      normalise(view);
      if (dot(n, view) < 0)
        for (float& c : n) c = -c;
      const int m = face_material[f];
      const Material& material = material_table[m];
      float albedo[3] = {material.tint[0], material.tint[1], material.tint[2]};
      if (texture_pointers[m]) {
        const Texture texture{reinterpret_cast<const uint8_t*>(texture_pointers[m]), texture_sizes[2 * m], texture_sizes[2 * m + 1]};
        const float* uv = uvs + static_cast<int64_t>(f) * 6;
        const Bilinear sample(texture, b[0] * uv[0] + b[1] * uv[2] + b[2] * uv[4], b[0] * uv[1] + b[1] * uv[3] + b[2] * uv[5]);
        for (int c = 0; c < 3; ++c) albedo[c] *= kGamma.value[static_cast<int>(sample.channel(c) + 0.5f)];
      }
      float irradiance[3], color[3];
      sh_evaluate(sh, n, irradiance);
      const float facing = std::max(dot(n, view), 0.0f);
      const float fresnel = 0.04f + 0.96f * fifth_power(1 - facing);
      const float reflected[3] = {2 * facing * n[0] - view[0], 2 * facing * n[1] - view[1], 2 * facing * n[2] - view[2]};
      float mirror[3];
      sh_evaluate(sh, reflected, mirror);
      for (int c = 0; c < 3; ++c)
        color[c] = ao * (albedo[c] * irradiance[c] + ao * material.environment * fresnel * mirror[c]);
      for (int l = 0; l < light_count; ++l) {
        const float* toward = light_directions + 3 * l;
        const float incident = dot(n, toward);
        float lit = 1;
        if (shadow_maps) {
          // Offset along the normal that grows with the slope: a constant bias in depth leaves acne at grazing light.
          const float* matrix = shadow_matrices + 12 * l;
          const float texel = 1 / std::sqrt(std::max(dot(matrix, matrix), 1e-12f));
          const float bias = 0.001f + 2 * texel * std::sqrt(std::max(1 - incident * incident, 0.0f));
          const float q[3] = {p[0] + n[0] * bias, p[1] + n[1] * bias, p[2] + n[2] * bias};
          lit = 1 - shadowed(shadow_maps + static_cast<int64_t>(l) * shadow_size * shadow_size, shadow_size, matrix, q);
        }
        float highlight = 0;
        if (incident > 0 && material.specular > 0) {
          float half[3] = {toward[0] + view[0], toward[1] + view[1], toward[2] + view[2]};
          normalise(half);
          const float rim = 0.04f + 0.96f * fifth_power(std::max(1 - dot(half, view), 0.0f));
          highlight = lit * material.specular * std::pow(std::max(dot(n, half), 1e-4f), material.gloss) * incident *
                      (material.gloss + 8) / 25 * (0.3f + rim);
        }
        for (int c = 0; c < 3; ++c) {
          const float wrap = material.wrap * kWrap[c];
          const float diffuse = std::min(std::max((incident + wrap) / (1 + wrap), 0.0f), 1.0f);
          // Part of the wrapped light passes a shadow's edge: it comes from under the skin.
          const float pass = lit + (1 - lit) * 0.25f * std::min(wrap, 1.0f);
          color[c] += light_colors[3 * l + c] * (albedo[c] * diffuse * pass * (0.35f + 0.65f * ao) + highlight * ao);
        }
      }
      for (int c = 0; c < 3; ++c) pixel[c] = color[c];
      pixel[3] = 1;
    }
  });
}
