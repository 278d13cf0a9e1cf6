// The rasteriser's C interface: see native.py for the caller and splat.h for the pipeline.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <vector>

#include "bins.h"
#include "export.h"
#include "parallel.h"
#include "splat.h"

namespace ffa {
namespace {

const Kernels* best_kernels() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kernels_avx2;
#endif
    return &kernels_baseline;
}

std::atomic<const Kernels*> chosen_kernels{nullptr};

}  // namespace

const Kernels& kernels() {
    const Kernels* chosen = chosen_kernels.load();
    if (!chosen) chosen_kernels.store(chosen = best_kernels());
    return *chosen;
}

namespace {

// The channels of the next pass when `left` remain.
int pass_channels(int left) { return left >= MAX_CHANNELS ? MAX_CHANNELS : std::min(left, 4); }

constexpr int PROJECT_CHUNK = 1024, TILE_CHUNK = 4;

}  // namespace
}  // namespace ffa

using namespace ffa;

// Mirrored by native.py. Strides are floats from one view's rows to the next one's, 0 where views share them.
struct FfaArguments {
    std::int32_t views, count, width, height, channels, antialiased, threads, keep;
    float near_plane, far_plane, radius_clip, eps2d;
    const float *means, *quats, *scales, *opacities, *colors;
    std::int64_t means_stride, quats_stride, scales_stride, opacities_stride, colors_stride;
    const float *viewmats, *Ks, *backgrounds;  // backgrounds (views, channels) or null

    Scene scene(int v) const {
        return {means + v * means_stride, quats + v * quats_stride, scales + v * scales_stride,
                opacities + v * opacities_stride, colors + v * colors_stride, viewmats + v * 16, Ks + v * 9,
                channels, width, height, antialiased != 0, near_plane, far_plane, radius_clip, eps2d};
    }
    int tiles_x() const { return (width + TILE_W - 1) / TILE_W; }
    int tiles_y() const { return (height + TILE_H - 1) / TILE_H; }
    std::int64_t pixels() const { return std::int64_t{width} * height; }
};

struct FfaState {
    std::vector<View> views;
};

enum Status { OK = 0, OUT_OF_MEMORY = 1, TOO_MANY_PAIRS = 2 };

namespace {

// Where a pass finds its colours: in the splats while these hold them all, else in the caller's array.
struct PassColors {
    const float* first;
    std::int64_t stride;
};

PassColors pass_colors(const FfaArguments& args, const View& view, int v, int offset) {
    if (args.channels <= MAX_CHANNELS) return {view.splats.data()->color + offset, sizeof(Splat) / sizeof(float)};
    return {args.colors + v * args.colors_stride + offset, args.channels};
}

Status run_forward(const FfaArguments& args, float* out_colors, float* out_alphas, FfaState& state) {
    const Kernels& k = kernels();
    const int tiles_x = args.tiles_x(), tiles = tiles_x * args.tiles_y();
    state.views = std::vector<View>(args.views);
    for (View& view : state.views) {
        view.splats.allocate(args.count);
        view.boxes.allocate(args.count);
        view.depth_keys.allocate(args.count);
        view.used.allocate(tiles);
    }
    const int chunks = (args.count + PROJECT_CHUNK - 1) / PROJECT_CHUNK;
    parallel_for(args.threads, args.views * chunks, 1, [&](int begin, int end) {
        for (int i = begin; i < end; ++i) {
            const int v = i / chunks, from = i % chunks * PROJECT_CHUNK, to = std::min(args.count, from + PROJECT_CHUNK);
            View& view = state.views[v];
            k.project(args.scene(v), from, to, view.splats.data(), view.boxes.data(), view.depth_keys.data());
        }
    });
    std::atomic<int> failed{OK};
    parallel_for(args.threads, args.views, 1, [&](int begin, int end) {
        for (int v = begin; v < end; ++v) {
            try {
                if (!sort_by_depth(state.views[v], args.count)) failed = TOO_MANY_PAIRS;
            } catch (const std::bad_alloc&) {
                failed = OUT_OF_MEMORY;
            }
        }
    });
    if (failed) return static_cast<Status>(failed.load());
    for (View& view : state.views) bin_into_tiles(view, tiles_x, args.tiles_y(), args.keep, args.threads);

    for (int offset = 0; offset < args.channels;) {
        const int channels = pass_channels(args.channels - offset);
        parallel_for(args.threads, args.views * tiles, TILE_CHUNK, [&](int begin, int end) {
            for (int i = begin; i < end; ++i) {
                const int v = i / tiles, t = i % tiles;
                const View& view = state.views[v];
                const PassColors colors = pass_colors(args, view, v, offset);
                TileForward job;
                job.splats = view.splats.data();
                job.colors = colors.first;
                job.color_stride = colors.stride;
                job.list = view.list.data() + view.tile_start[t];
                job.count = view.tile_start[t + 1] - view.tile_start[t];
                job.x = t % tiles_x * TILE_W;
                job.y = t / tiles_x * TILE_H;
                job.width = args.width, job.height = args.height, job.channels = args.channels;
                job.background = args.backgrounds ? args.backgrounds + std::int64_t{v} * args.channels + offset : nullptr;
                job.out_colors = out_colors + v * args.pixels() * args.channels + offset;
                job.out_alphas = out_alphas + v * args.pixels();
                job.used = &view.used[t];
                k.forward[channels](job);
            }
        });
        offset += channels;
    }
    return OK;
}

struct Gradients {
    float *means, *quats, *scales, *opacities, *colors;
};

void run_backward(const FfaArguments& args, const FfaState& state, const float* out_colors, const float* out_alphas,
                  const float* v_colors, const float* v_alphas, const Gradients& out) {
    const Kernels& k = kernels();
    const int tiles_x = args.tiles_x(), tiles = tiles_x * args.tiles_y();
    const std::int64_t count = args.count;
    std::vector<Buffer<float>> records(args.views), moments(args.views);
    for (int v = 0; v < args.views; ++v) {
        records[v].allocate(std::size_t(state.views[v].pairs()) * (MOMENTS + std::min(args.channels, MAX_CHANNELS)));
        moments[v].allocate(std::size_t(count) * MOMENTS);
    }
    for (int offset = 0; offset < args.channels;) {
        const int channels = pass_channels(args.channels - offset), record_size = MOMENTS + channels;
        const bool first_pass = offset == 0;
        parallel_for(args.threads, args.views * tiles, TILE_CHUNK, [&](int begin, int end) {
            for (int i = begin; i < end; ++i) {
                const int v = i / tiles, t = i % tiles;
                const View& view = state.views[v];
                const PassColors colors = pass_colors(args, view, v, offset);
                TileBackward job;
                job.splats = view.splats.data();
                job.colors = colors.first;
                job.color_stride = colors.stride;
                job.list = view.list.data() + view.tile_start[t];
                job.slots = view.slots.data() + view.tile_start[t];
                job.count = view.tile_start[t + 1] - view.tile_start[t];
                job.used = view.used[t];
                job.x = t % tiles_x * TILE_W;
                job.y = t / tiles_x * TILE_H;
                job.width = args.width, job.height = args.height, job.channels = args.channels;
                job.out_colors = out_colors + v * args.pixels() * args.channels + offset;
                job.out_alphas = out_alphas + v * args.pixels();
                job.v_colors = v_colors + v * args.pixels() * args.channels + offset;
                job.v_alphas = v_alphas && first_pass ? v_alphas + v * args.pixels() : nullptr;
                job.records = records[v].data();
                if (job.count) k.backward[channels](job);
            }
        });
        // Sum the records of each Gaussian. Views go one after the other: they may share the gradient's rows.
        parallel_for(args.threads, args.count, PROJECT_CHUNK, [&](int begin, int end) {
            for (int v = 0; v < args.views; ++v) {
                const View& view = state.views[v];
                for (std::int64_t i = begin; i < end; ++i) {
                    float sums[MOMENTS + MAX_CHANNELS] = {};
                    for (std::int64_t pair = view.first_pair[i]; pair < view.first_pair[i + 1]; ++pair) {
                        const float* record = records[v].data() + pair * record_size;
                        for (int j = 0; j < record_size; ++j) sums[j] += record[j];
                    }
                    float* moment = moments[v].data() + i * MOMENTS;
                    for (int j = 0; j < MOMENTS; ++j) moment[j] = first_pass ? sums[j] : moment[j] + sums[j];
                    float* color = out.colors + v * args.colors_stride + i * args.channels + offset;
                    for (int j = 0; j < channels; ++j) color[j] += sums[MOMENTS + j];
                }
                if (offset + channels < args.channels) continue;
                const SceneGradients gradients = {out.means + v * args.means_stride, out.quats + v * args.quats_stride,
                                                  out.scales + v * args.scales_stride,
                                                  out.opacities + v * args.opacities_stride};
                k.project_backward(args.scene(v), begin, end, view.splats.data(), view.boxes.data(), moments[v].data(),
                                   gradients);
            }
        });
        offset += channels;
    }
}

}  // namespace

// Renders into out_colors (views,H,W,channels) and out_alphas (views,H,W). With args->keep, *state receives what
// ffa_rasterize_backward needs and ffa_rasterize_free must release. Returns a Status.
FFA_EXPORT int ffa_rasterize_forward(const FfaArguments* args, float* out_colors, float* out_alphas, FfaState** state) {
    *state = nullptr;
    try {
        FfaState* fresh = new FfaState;
        const Status status = [&] {
            try {
                return run_forward(*args, out_colors, out_alphas, *fresh);
            } catch (const std::bad_alloc&) {
                return OUT_OF_MEMORY;
            }
        }();
        if (status == OK && args->keep) {
            *state = fresh;
        } else {
            delete fresh;
        }
        return status;
    } catch (const std::bad_alloc&) {
        return OUT_OF_MEMORY;
    }
}

// Adds the gradients to arrays of the inputs' shapes. v_alphas may be null. Returns a Status.
FFA_EXPORT int ffa_rasterize_backward(const FfaArguments* args, const FfaState* state, const float* out_colors,
                                      const float* out_alphas, const float* v_colors, const float* v_alphas,
                                      float* v_means, float* v_quats, float* v_scales, float* v_opacities,
                                      float* v_splat_colors) {
    try {
        run_backward(*args, *state, out_colors, out_alphas, v_colors, v_alphas,
                     {v_means, v_quats, v_scales, v_opacities, v_splat_colors});
        return OK;
    } catch (const std::bad_alloc&) {
        return OUT_OF_MEMORY;
    }
}

FFA_EXPORT void ffa_rasterize_free(FfaState* state) { delete state; }

// (Gaussian, tile) pairs of all views, the unit of the tile kernels' work.
FFA_EXPORT std::int64_t ffa_rasterize_pairs(const FfaState* state) {
    std::int64_t pairs = 0;
    for (const View& view : state->views) pairs += view.pairs();
    return pairs;
}

FFA_EXPORT const char* ffa_instruction_set() { return kernels().name; }

// For tests and benchmarks: use a narrower instruction set ("best" undoes it). 0 if it is unknown or the CPU lacks it.
FFA_EXPORT int ffa_choose_instruction_set(const char* name) {
    const Kernels* best = best_kernels();
    const Kernels* wanted = nullptr;
    if (!std::strcmp(name, "best")) wanted = best;
    if (!std::strcmp(name, kernels_baseline.name)) wanted = &kernels_baseline;
#if defined(__x86_64__)
    if (!std::strcmp(name, "avx2") && best != &kernels_baseline) wanted = &kernels_avx2;
    if (!std::strcmp(name, "avx512") && best == &kernels_avx512) wanted = best;
#endif
    if (wanted) chosen_kernels.store(wanted);
    return wanted != nullptr;
}
