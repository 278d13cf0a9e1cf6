// Residuals on a person's Gaussians and their gradients: what one step of personalization does besides drawing.
// ffavatar/personal/residuals.py holds the readable form.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "export.h"
#include "parallel.h"

namespace {

constexpr int CHUNK = 2048, SMOOTH = 6;  // channels that follow the nodes: offset and colour
enum Attribute { OFFSET, SCALE, TURN, OPACITY, COLOR, ATTRIBUTES };
constexpr int CHANNELS[ATTRIBUTES] = {3, 3, 3, 1, 3};

// An axis-angle's quaternion is (real, factor v); near zero by series that keep value and gradient exact to float32.
struct HalfAngle {
    float real, factor;
    float slope;  // d factor / d v = slope v; d real / d v = -factor v / 2
};

inline HalfAngle half_angle(const float* v) {
    const float squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    if (squared < 1e-2f)
        return {1 - squared * (1 / 8.0f - squared / 384), 0.5f - squared * (1 / 48.0f - squared / 3840),
                -1 / 24.0f + squared / 960};
    const float angle = std::sqrt(squared), real = std::cos(angle / 2), factor = std::sin(angle / 2) / angle;
    return {real, factor, (real / 2 - factor) / squared};
}

inline float clamped(float x, float low, float high) { return x < low ? low : (x > high ? high : x); }
inline bool inside(float x, float low, float high) { return x >= low && x <= high; }

}  // namespace

// Mirrored by personal/fused.py. Arrays of pointers are in the order of Attribute.
struct FfaResiduals {
    std::int32_t threads, points, nodes, reach;
    float limit, unseen_pull;
    float sigmas[ATTRIBUTES];
    const std::int32_t* index;  // (points, reach) nodes that each Gaussian follows
    const float* weight;        // (points, reach)
    const float* seen;          // (points)
    const float *offsets, *quats, *scales, *opacities, *colors, *logits;  // of the avatar
    const float* smooth;                                                  // (nodes, 6) offset and colour
    const float* values[ATTRIBUTES];                                      // (points, channels)
    // Of each node, the places in `index` that name it: starts (nodes + 1), places (points * reach).
    const std::int32_t *starts, *places;
};

namespace {

inline void follow_nodes(const FfaResiduals& r, int i, float* sums) {
    for (int c = 0; c < SMOOTH; ++c) sums[c] = 0;
    for (int k = 0; k < r.reach; ++k) {
        const std::size_t at = std::size_t(i) * r.reach + k;
        const float* node = r.smooth + std::size_t(r.index[at]) * SMOOTH;
        for (int c = 0; c < SMOOTH; ++c) sums[c] += r.weight[at] * node[c];
    }
}

inline float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

// Writes the Gaussians with their residuals, in the order offsets, quats, scales, opacities, colors, and into `prior` the
// sum over the attributes of their mean squared residuals in sigmas. 1: out of memory.
FFA_EXPORT int ffa_residuals(const FfaResiduals* given, float* const* out, double* prior) {
    const FfaResiduals& r = *given;
    const int chunks = (r.points + CHUNK - 1) / CHUNK;
    ffa::Buffer<double> costs;  // of each chunk, summed in one order below
    try {
        costs.allocate(chunks);
    } catch (...) {
        return 1;
    }
    double* const cost = costs.data();
    ffa::parallel_for(r.threads, chunks, 1, [&r, out, cost](int begin, int end) {
        for (int chunk = begin; chunk < end; ++chunk) {
            double total = 0;
            const int last = (chunk + 1) * CHUNK < r.points ? (chunk + 1) * CHUNK : r.points;
            for (int i = chunk * CHUNK; i < last; ++i) {
                float smooth[SMOOTH];
                follow_nodes(r, i, smooth);
                const float seen = r.seen[i];
                double own = 0;
                for (int a = 0; a < ATTRIBUTES; ++a) {
                    float sum = 0;
                    for (int c = 0; c < CHANNELS[a]; ++c) {
                        const float value = seen * r.values[a][i * CHANNELS[a] + c] / r.sigmas[a];
                        sum += value * value;
                    }
                    own += sum / CHANNELS[a];
                }
                total += (1 + r.unseen_pull * (1 - seen)) * own;
                float turn[3];
                for (int c = 0; c < 3; ++c) {
                    out[0][3 * i + c] = r.offsets[3 * i + c] + smooth[c] + seen * r.values[OFFSET][3 * i + c];
                    const float grow = clamped(seen * r.values[SCALE][3 * i + c], -r.limit, r.limit);
                    out[2][3 * i + c] = r.scales[3 * i + c] * std::exp(grow);
                    out[4][3 * i + c] =
                        clamped(r.colors[3 * i + c] + smooth[3 + c] + seen * r.values[COLOR][3 * i + c], 0, 1);
                    turn[c] = seen * r.values[TURN][3 * i + c];
                }
                const float change = sigmoid(r.logits[i] + seen * r.values[OPACITY][i]) - sigmoid(r.logits[i]);
                out[3][i] = clamped(r.opacities[i] + change, 0, 1);
                const HalfAngle half = half_angle(turn);
                const float w = half.real, x = half.factor * turn[0], y = half.factor * turn[1], z = half.factor * turn[2];
                const float* q = r.quats + 4 * i;
                out[1][4 * i] = q[0] * w - q[1] * x - q[2] * y - q[3] * z;
                out[1][4 * i + 1] = q[0] * x + q[1] * w + q[2] * z - q[3] * y;
                out[1][4 * i + 2] = q[0] * y - q[1] * z + q[2] * w + q[3] * x;
                out[1][4 * i + 3] = q[0] * z + q[1] * y - q[2] * x + q[3] * w;
            }
            cost[chunk] = total;
        }
    });
    *prior = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) *prior += cost[chunk];
    *prior /= r.points;
    return 0;
}

// From the gradients of what ffa_residuals makes, v_out in its order and v_prior: those of the values, and v_smooth
// (nodes, 6). Every sum is in one order, whatever the threads. 1: out of memory.
FFA_EXPORT int ffa_residuals_backward(const FfaResiduals* given, const float* const* v_out, float v_prior,
                                      float* v_smooth, float* const* v_values) {
    const FfaResiduals& r = *given;
    ffa::Buffer<float> followed;  // (points, 6) gradients of what follows the nodes
    try {
        followed.allocate(std::size_t(r.points) * SMOOTH);
    } catch (...) {
        return 1;
    }
    float* const of_smooth = followed.data();
    ffa::parallel_for(r.threads, r.points, CHUNK, [&r, v_out, v_prior, v_values, of_smooth](int begin, int end) {
        for (int i = begin; i < end; ++i) {
            float smooth[SMOOTH], turn[3];
            follow_nodes(r, i, smooth);
            const float seen = r.seen[i];
            const float pull = v_prior * 2 * (1 + r.unseen_pull * (1 - seen)) * seen * seen / r.points;
            float pulls[ATTRIBUTES];  // the prior's gradient is this times the value
            for (int a = 0; a < ATTRIBUTES; ++a) pulls[a] = pull / (r.sigmas[a] * r.sigmas[a] * CHANNELS[a]);
            for (int c = 0; c < 3; ++c) {
                const int at = 3 * i + c;
                const float of_offset = v_out[0][at];
                const float color = r.colors[at] + smooth[3 + c] + seen * r.values[COLOR][at];
                const float of_color = inside(color, 0, 1) ? v_out[4][at] : 0.0f;
                of_smooth[std::size_t(i) * SMOOTH + c] = of_offset;
                of_smooth[std::size_t(i) * SMOOTH + 3 + c] = of_color;
                v_values[OFFSET][at] = seen * of_offset + pulls[OFFSET] * r.values[OFFSET][at];
                v_values[COLOR][at] = seen * of_color + pulls[COLOR] * r.values[COLOR][at];
                const float grow = seen * r.values[SCALE][at];
                const float of_scale = inside(grow, -r.limit, r.limit) ? v_out[2][at] * r.scales[at] * std::exp(grow) : 0.0f;
                v_values[SCALE][at] = seen * of_scale + pulls[SCALE] * r.values[SCALE][at];
                turn[c] = seen * r.values[TURN][at];
            }
            const float start = sigmoid(r.logits[i]), now = sigmoid(r.logits[i] + seen * r.values[OPACITY][i]);
            const float of_opacity = inside(r.opacities[i] + (now - start), 0, 1) ? v_out[3][i] * now * (1 - now) : 0.0f;
            v_values[OPACITY][i] = seen * of_opacity + pulls[OPACITY] * r.values[OPACITY][i];

            // the gradient of the right factor of a product of quaternions: the left one's conjugate times its own
            const float *q = r.quats + 4 * i, *g = v_out[1] + 4 * i;
            const float of_real = q[0] * g[0] + q[1] * g[1] + q[2] * g[2] + q[3] * g[3];
            const float of_axis[3] = {q[0] * g[1] - q[1] * g[0] - q[2] * g[3] + q[3] * g[2],
                                      q[0] * g[2] + q[1] * g[3] - q[2] * g[0] - q[3] * g[1],
                                      q[0] * g[3] - q[1] * g[2] + q[2] * g[1] - q[3] * g[0]};
            const HalfAngle half = half_angle(turn);
            const float along = turn[0] * of_axis[0] + turn[1] * of_axis[1] + turn[2] * of_axis[2];
            const float inward = half.slope * along - half.factor / 2 * of_real;
            for (int c = 0; c < 3; ++c)
                v_values[TURN][3 * i + c] =
                    seen * (half.factor * of_axis[c] + inward * turn[c]) + pulls[TURN] * r.values[TURN][3 * i + c];
        }
    });
    ffa::parallel_for(r.threads, r.nodes, 8, [&r, v_smooth, of_smooth](int begin, int end) {
        for (int node = begin; node < end; ++node) {
            float sums[SMOOTH] = {};
            for (int at = r.starts[node]; at < r.starts[node + 1]; ++at) {
                const int place = r.places[at];
                const float* of_one = of_smooth + std::size_t(place / r.reach) * SMOOTH;
                for (int c = 0; c < SMOOTH; ++c) sums[c] += r.weight[place] * of_one[c];
            }
            for (int c = 0; c < SMOOTH; ++c) v_smooth[std::size_t(node) * SMOOTH + c] = sums[c];
        }
    });
    return 0;
}
