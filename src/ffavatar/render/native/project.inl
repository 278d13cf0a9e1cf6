// Gaussians onto the picture and their gradients back, LANES Gaussians at a time. Included by kernels.inl.
//
// EWA splatting as in gsplat 1.5.3: covariance Sigma = M M^T with M = R(quat) diag(scales); on the picture J W Sigma W^T J^T
// + eps2d I with W the camera's rotation and J the Jacobian of the projection (clamped 30 % outside the picture).
// A Gaussian with a value that is not finite is not drawn and gets no gradient.

struct Projection {
    Vec x, y, z;         // in the camera
    Vec along;           // z without the camera's translation: the same order with more digits of difference
    Vec rotation[9];     // of the quaternion
    Vec unit[4], inverse_norm;
    Vec shape[9];        // W M
    Vec slope_x, slope_y;  // the clamped x/z, y/z
    Mask free_x, free_y;   // not clamped
    Vec j00, j02, j11, j12;
    Vec xx, xy, yy, det;  // covariance on the picture, eps2d included
    Vec compensation;     // sqrt(det without eps2d / det)
};

// (count, stride) rows of floats: component c of the rows first .. first + LANES - 1, the last row repeated past `end`.
static inline Vec load(const float* rows, int stride, int component, int first, int end) {
    float lane[LANES];
    for (int i = 0; i < LANES; ++i) {
        const int row = first + i < end ? first + i : end - 1;
        lane[i] = rows[(std::int64_t)row * stride + component];
    }
    Vec out;
    __builtin_memcpy(&out, lane, sizeof out);
    return out;
}

static inline void multiply(const float* a, const Vec* b, Vec* out) {
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) out[i * 3 + j] = a[i] * b[j] + a[i + 3] * b[3 + j] + a[i + 6] * b[6 + j];
}

static inline Projection project_lanes(const Scene& scene, int first, int end) {
    Projection p;
    const float *view = scene.viewmat, fx = scene.K[0], fy = scene.K[4], cx = scene.K[2], cy = scene.K[5];
    const Vec mx = load(scene.means, 3, 0, first, end), my = load(scene.means, 3, 1, first, end);
    const Vec mz = load(scene.means, 3, 2, first, end);
    p.x = view[0] * mx + view[1] * my + view[2] * mz + view[3];
    p.y = view[4] * mx + view[5] * my + view[6] * mz + view[7];
    p.along = view[8] * mx + view[9] * my + view[10] * mz;
    p.z = p.along + view[11];

    Vec norm2 = Vec{};
    for (int i = 0; i < 4; ++i) {
        p.unit[i] = load(scene.quats, 4, i, first, end);
        norm2 += p.unit[i] * p.unit[i];
    }
    p.inverse_norm = 1.0f / root(norm2);
    for (int i = 0; i < 4; ++i) p.unit[i] *= p.inverse_norm;
    const Vec w = p.unit[0], x = p.unit[1], y = p.unit[2], z = p.unit[3];
    Vec* r = p.rotation;
    r[0] = 1.0f - 2.0f * (y * y + z * z), r[1] = 2.0f * (x * y - w * z), r[2] = 2.0f * (x * z + w * y);
    r[3] = 2.0f * (x * y + w * z), r[4] = 1.0f - 2.0f * (x * x + z * z), r[5] = 2.0f * (y * z - w * x);
    r[6] = 2.0f * (x * z - w * y), r[7] = 2.0f * (y * z + w * x), r[8] = 1.0f - 2.0f * (x * x + y * y);

    for (int j = 0; j < 3; ++j) {
        const Vec scale = load(scene.scales, 3, j, first, end);
        const Vec m0 = r[j] * scale, m1 = r[3 + j] * scale, m2 = r[6 + j] * scale;
        for (int i = 0; i < 3; ++i) p.shape[i * 3 + j] = view[i * 4] * m0 + view[i * 4 + 1] * m1 + view[i * 4 + 2] * m2;
    }

    const Vec inverse_z = 1.0f / p.z;
    const float margin_x = 0.15f * scene.width / fx, margin_y = 0.15f * scene.height / fy;
    const Vec right = all((scene.width - cx) / fx + margin_x), left = all(-cx / fx - margin_x);
    const Vec bottom = all((scene.height - cy) / fy + margin_y), top = all(-cy / fy - margin_y);
    const Vec ux = p.x * inverse_z, uy = p.y * inverse_z;
    p.free_x = both(ge(right, ux), ge(ux, left));
    p.free_y = both(ge(bottom, uy), ge(uy, top));
    p.slope_x = smaller(right, larger(left, ux));
    p.slope_y = smaller(bottom, larger(top, uy));
    p.j00 = fx * inverse_z, p.j02 = -fx * p.slope_x * inverse_z;
    p.j11 = fy * inverse_z, p.j12 = -fy * p.slope_y * inverse_z;

    Vec xx = Vec{}, xy = Vec{}, yy = Vec{};
    for (int j = 0; j < 3; ++j) {
        const Vec row0 = p.j00 * p.shape[j] + p.j02 * p.shape[6 + j];
        const Vec row1 = p.j11 * p.shape[3 + j] + p.j12 * p.shape[6 + j];
        xx += row0 * row0, xy += row0 * row1, yy += row1 * row1;
    }
    const Vec sharp = xx * yy - xy * xy;
    p.xx = xx + scene.eps2d, p.xy = xy, p.yy = yy + scene.eps2d;
    p.det = p.xx * p.yy - xy * xy;
    p.compensation = root(larger(sharp / p.det, Vec{}));
    return p;
}

constexpr float LARGEST_FLOAT = 3.402823466e38f;

static inline int ceil_to_int(float value) { return (int)__builtin_ceilf(value); }

static void project(const Scene& scene, int begin, int end, Splat* splats, TileBox* boxes, std::uint32_t* keys) {
    const float width = (float)scene.width, height = (float)scene.height;
    const int inline_channels = scene.channels < MAX_CHANNELS ? scene.channels : MAX_CHANNELS;
    for (int first = begin; first < end; first += LANES) {
        const Projection p = project_lanes(scene, first, end);
        Vec opacity = load(scene.opacities, 1, 0, first, end);
        if (scene.antialiased) opacity *= p.compensation;
        Vec log2_opacity;
        for (int i = 0; i < LANES; ++i) log2_opacity[i] = __builtin_log2f(opacity[i]);
        const Vec inverse_z = 1.0f / p.z, inverse_det = 1.0f / p.det;
        const Vec x = scene.K[0] * p.x * inverse_z + scene.K[2], y = scene.K[4] * p.y * inverse_z + scene.K[5];
        const Vec extent2 = smaller(all(MAX_EXTENT * MAX_EXTENT), 2.0f * LN_2 * (log2_opacity + LOG2_255));
        const Vec radius_x = root(extent2 * p.xx), radius_y = root(extent2 * p.yy);
        const Vec a = 0.5f * EIGHTH_LOG2_E * p.yy * inverse_det, c = 0.5f * EIGHTH_LOG2_E * p.xx * inverse_det;
        const Vec b = -EIGHTH_LOG2_E * p.xy * inverse_det, peak = 0.125f * log2_opacity;
        const Vec sum = x + y + p.z + a + b + c + opacity + radius_x + radius_y;  // finite only if all of them are
        Mask drawn = both(ge(p.z, all(scene.near_plane)), ge(all(scene.far_plane), p.z));
        drawn = both(drawn, both(gt(p.det, Vec{}), ge(opacity, all(MIN_ALPHA))));
        drawn = both(drawn, both(ge(all(LARGEST_FLOAT), sum), ge(sum, all(-LARGEST_FLOAT))));
        const Vec kept = keep(drawn, all(1.0f));

        for (int i = 0; i < LANES && first + i < end; ++i) {
            const int index = first + i;
            boxes[index] = TileBox{0, 0, 0, 0};
            if (kept[i] == 0.0f) continue;
            const float ceil_x = __builtin_ceilf(radius_x[i]), ceil_y = __builtin_ceilf(radius_y[i]);
            if (ceil_x <= scene.radius_clip && ceil_y <= scene.radius_clip) continue;
            // a thousandth of a pixel more, so that rounding cannot lose the pixel on the rim
            const float half_w = radius_x[i] + 1e-3f, half_h = radius_y[i] + 1e-3f;
            const float low_x = x[i] - half_w - 0.5f, high_x = x[i] + half_w - 0.5f;
            const float low_y = y[i] - half_h - 0.5f, high_y = y[i] + half_h - 0.5f;
            if (!(high_x >= 0 && low_x <= width - 1 && high_y >= 0 && low_y <= height - 1)) continue;
            const int x0 = low_x > 0 ? ceil_to_int(low_x) : 0, x1 = high_x < width - 1 ? (int)high_x : scene.width - 1;
            const int y0 = low_y > 0 ? ceil_to_int(low_y) : 0, y1 = high_y < height - 1 ? (int)high_y : scene.height - 1;
            if (x1 < x0 || y1 < y0) continue;
            boxes[index] = TileBox{(std::uint16_t)(x0 / TILE_W), (std::uint16_t)(y0 / TILE_H),
                                   (std::uint16_t)(x1 / TILE_W + 1), (std::uint16_t)(y1 / TILE_H + 1)};
            const float along = p.along[i];
            std::uint32_t key;
            __builtin_memcpy(&key, &along, sizeof key);
            keys[index] = key ^ (key >> 31 ? 0xffffffffu : 0x80000000u);  // unsigned, in the order of the floats
            Splat& s = splats[index];
            s.x = x[i], s.y = y[i], s.a = a[i], s.b = b[i], s.c = c[i], s.peak = peak[i];
            s.half_w = half_w, s.half_h = half_h;
            const float* color = scene.colors + (std::int64_t)index * scene.channels;
            for (int d = 0; d < inline_channels; ++d) s.color[d] = color[d];
        }
    }
}

// Adds each Gaussian's gradient to `out`. `moments` holds MOMENTS sums per Gaussian (see splat.h).
static void project_backward(const Scene& scene, int begin, int end, const Splat* splats, const TileBox* boxes,
                             const float* moments, const SceneGradients& out) {
    const float *view = scene.viewmat, fx = scene.K[0], fy = scene.K[4];
    for (int first = begin; first < end; first += LANES) {
        bool drawn[LANES], any_drawn = false;
        float a[LANES], b[LANES], c[LANES];
        for (int i = 0; i < LANES; ++i) {
            drawn[i] = first + i < end && boxes[first + i].tiles() > 0;
            any_drawn |= drawn[i];
            const Splat* s = drawn[i] ? &splats[first + i] : nullptr;
            a[i] = s ? s->a : 0.0f, b[i] = s ? s->b : 0.0f, c[i] = s ? s->c : 0.0f;
        }
        if (!any_drawn) continue;
        const Projection p = project_lanes(scene, first, end);
        const Vec opacity = load(scene.opacities, 1, 0, first, end);
        Vec k00, k01, k11;  // inverse covariance on the picture
        __builtin_memcpy(&k00, a, sizeof a), __builtin_memcpy(&k01, b, sizeof b), __builtin_memcpy(&k11, c, sizeof c);
        k00 *= 16.0f * LN_2, k01 *= 8.0f * LN_2, k11 *= 16.0f * LN_2;
        Vec m[MOMENTS];
        for (int i = 0; i < MOMENTS; ++i) m[i] = load(moments, MOMENTS, i, first, end);

        const Vec v_x = k00 * m[1] + k01 * m[2], v_y = k01 * m[1] + k11 * m[2];
        const Vec c00 = 0.5f * m[3], c01 = 0.5f * m[4], c11 = 0.5f * m[5];  // towards K = cov^-1, as a symmetric matrix
        // towards the covariance: -K C K
        const Vec t00 = c00 * k00 + c01 * k01, t01 = c00 * k01 + c01 * k11;
        const Vec t10 = c01 * k00 + c11 * k01, t11 = c01 * k01 + c11 * k11;
        Vec w00 = -(k00 * t00 + k01 * t10), w01 = -(k00 * t01 + k01 * t11), w11 = -(k01 * t01 + k11 * t11);
        Vec v_opacity = -m[0] / opacity;  // with antialiasing this is dLoss/d(opacity compensation) times the compensation
        if (scene.antialiased) {
            // compensation^2 = 1 - (terms in eps2d); gsplat's 1e-6 guards the root at 0
            const Vec v_compensation = -m[0] / p.compensation;
            const Vec half = 0.5f * v_compensation / (p.compensation + 1e-6f);
            const Vec lost = 1.0f - p.compensation * p.compensation, eps_over_det = scene.eps2d / p.det;
            w00 += half * (lost * k00 - eps_over_det);
            w01 += half * lost * k01;
            w11 += half * (lost * k11 - eps_over_det);
        }

        // cov = J S J^T with S = shape shape^T:  towards S: J^T w J;  towards J: 2 w J S
        const Vec a0 = w00 * p.j00, a1 = w01 * p.j11, a2 = w00 * p.j02 + w01 * p.j12;  // w J
        const Vec b0 = w01 * p.j00, b1 = w11 * p.j11, b2 = w01 * p.j02 + w11 * p.j12;
        const Vec v_s[9] = {p.j00 * a0, p.j00 * a1, p.j00 * a2, p.j11 * b0, p.j11 * b1, p.j11 * b2,
                            p.j02 * a0 + p.j12 * b0, p.j02 * a1 + p.j12 * b1, p.j02 * a2 + p.j12 * b2};
        Vec v_j0[3] = {Vec{}, Vec{}, Vec{}}, v_j1[3] = {Vec{}, Vec{}, Vec{}}, v_shape[9];
        for (int j = 0; j < 3; ++j) {
            const Vec s0 = p.shape[j], s1 = p.shape[3 + j], s2 = p.shape[6 + j];
            const Vec along0 = 2.0f * (a0 * s0 + a1 * s1 + a2 * s2), along1 = 2.0f * (b0 * s0 + b1 * s1 + b2 * s2);
            for (int i = 0; i < 3; ++i) {
                v_j0[i] += along0 * p.shape[i * 3 + j];
                v_j1[i] += along1 * p.shape[i * 3 + j];
                v_shape[i * 3 + j] = 2.0f * (v_s[i * 3] * s0 + v_s[i * 3 + 1] * s1 + v_s[i * 3 + 2] * s2);
            }
        }

        const Vec inverse_z = 1.0f / p.z, inverse_z2 = inverse_z * inverse_z;
        // J02 = -fx slope / z, where the slope is x/z or, clamped, a constant
        const Vec once_x = fx * inverse_z2 * v_j0[2], once_y = fy * inverse_z2 * v_j1[2];
        const Vec v_cx = fx * inverse_z * v_x - keep(p.free_x, once_x);
        const Vec v_cy = fy * inverse_z * v_y - keep(p.free_y, once_y);
        const Vec v_cz = -(fx * p.x * v_x + fy * p.y * v_y) * inverse_z2 -
                         (fx * v_j0[0] + fy * v_j1[1]) * inverse_z2 + p.slope_x * (once_x + keep(p.free_x, once_x)) +
                         p.slope_y * (once_y + keep(p.free_y, once_y));
        Vec v_mean[3], v_scale[3], v_m[9], v_r[9];
        const float turn[9] = {view[0], view[1], view[2], view[4], view[5], view[6], view[8], view[9], view[10]};
        for (int j = 0; j < 3; ++j) v_mean[j] = turn[j] * v_cx + turn[3 + j] * v_cy + turn[6 + j] * v_cz;
        multiply(turn, v_shape, v_m);  // by the transpose
        for (int j = 0; j < 3; ++j) {
            const Vec scale = load(scene.scales, 3, j, first, end);
            v_scale[j] = p.rotation[j] * v_m[j] + p.rotation[3 + j] * v_m[3 + j] + p.rotation[6 + j] * v_m[6 + j];
            for (int i = 0; i < 3; ++i) v_r[i * 3 + j] = v_m[i * 3 + j] * scale;
        }
        const Vec w = p.unit[0], x = p.unit[1], y = p.unit[2], z = p.unit[3];
        Vec v_quat[4];
        v_quat[0] = 2.0f * (x * (v_r[7] - v_r[5]) + y * (v_r[2] - v_r[6]) + z * (v_r[3] - v_r[1]));
        v_quat[1] = 2.0f * (y * (v_r[1] + v_r[3]) + z * (v_r[2] + v_r[6]) + w * (v_r[7] - v_r[5]) -
                            2.0f * x * (v_r[4] + v_r[8]));
        v_quat[2] = 2.0f * (x * (v_r[1] + v_r[3]) + z * (v_r[5] + v_r[7]) + w * (v_r[2] - v_r[6]) -
                            2.0f * y * (v_r[0] + v_r[8]));
        v_quat[3] = 2.0f * (x * (v_r[2] + v_r[6]) + y * (v_r[5] + v_r[7]) + w * (v_r[3] - v_r[1]) -
                            2.0f * z * (v_r[0] + v_r[4]));
        const Vec radial = v_quat[0] * w + v_quat[1] * x + v_quat[2] * y + v_quat[3] * z;
        for (int j = 0; j < 4; ++j) v_quat[j] = (v_quat[j] - radial * p.unit[j]) * p.inverse_norm;

        for (int i = 0; i < LANES; ++i) {
            if (!drawn[i]) continue;
            const std::int64_t index = first + i;
            for (int j = 0; j < 3; ++j) out.means[index * 3 + j] += v_mean[j][i];
            for (int j = 0; j < 4; ++j) out.quats[index * 4 + j] += v_quat[j][i];
            for (int j = 0; j < 3; ++j) out.scales[index * 3 + j] += v_scale[j][i];
            out.opacities[index] += v_opacity[i];
        }
    }
}
