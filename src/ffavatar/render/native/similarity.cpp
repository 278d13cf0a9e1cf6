// Mean structural similarity of pictures and its gradient. ffavatar/ssim.py holds the readable form and the formula's
// source.

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "buffer.h"
#include "export.h"
#include "parallel.h"
#include "splat.h"

namespace {

constexpr int ROWS = 8;  // of a picture that are one piece of work

struct Window {
    float of[ffa::SSIM_WINDOW];
    Window() {
        double raw[ffa::SSIM_WINDOW], sum = 0;
        for (int k = 0; k < ffa::SSIM_WINDOW; ++k) {
            const double offset = k - ffa::SSIM_WINDOW / 2;
            sum += raw[k] = std::exp(-offset * offset / (2 * 1.5 * 1.5));
        }
        for (int k = 0; k < ffa::SSIM_WINDOW; ++k) of[k] = static_cast<float>(raw[k] / sum);
    }
};

const Window window;

}  // namespace

// first, second (pictures, height, width, channels), sides of at least 11 -> means (pictures). Where `slopes` is given,
// it takes, for every window, the derivatives of its similarity by the means of a, a^2 and a b, with a and b the
// pictures less a half: (pictures, 3, height - 10, (width - 10) channels). 1: out of memory.
FFA_EXPORT int ffa_ssim(int threads, int pictures, int height, int width, int channels, const float* first,
                        const float* second, double* means, float* slopes) {
    const int row = width * channels, rows = height - ffa::SSIM_WINDOW + 1;
    const int count = row - (ffa::SSIM_WINDOW - 1) * channels, pieces = (rows + ROWS - 1) / ROWS;
    const std::size_t work_size = std::size_t(row) * 5 + std::size_t(count) * 5, plane = std::size_t(rows) * count;
    ffa::Buffer<float> work;
    ffa::Buffer<double> totals;  // of each row, summed in one order below
    try {
        work.allocate(std::size_t(pictures) * pieces * work_size);
        totals.allocate(std::size_t(pictures) * rows);
    } catch (...) {
        return 1;
    }
    const ffa::Kernels& kernels = ffa::kernels();
    ffa::parallel_for(threads, pictures * pieces, 1, [&](int begin, int end) {
        for (int piece = begin; piece < end; ++piece) {
            const int picture = piece / pieces, from = piece % pieces * ROWS;
            for (int y = from; y < std::min(from + ROWS, rows); ++y) {
                const std::size_t top = (std::size_t(picture) * height + y) * row;
                ffa::SsimRow job;
                job.window = window.of;
                job.row = row, job.channels = channels;
                job.first = first + top, job.second = second + top;
                job.work = work.data() + piece * work_size;
                job.slopes = slopes ? slopes + picture * 3 * plane + std::size_t(y) * count : nullptr;
                job.plane = plane;
                totals[std::size_t(picture) * rows + y] = kernels.ssim_row(job);
            }
        }
    });
    for (int picture = 0; picture < pictures; ++picture) {
        double sum = 0;
        for (int y = 0; y < rows; ++y) sum += totals[std::size_t(picture) * rows + y];
        means[picture] = sum / (double(rows) * count);
    }
    return 0;
}

// The gradient of the means by `first`, times v_means (pictures): v_first (pictures, height, width, channels).
FFA_EXPORT int ffa_ssim_backward(int threads, int pictures, int height, int width, int channels, const float* first,
                                 const float* second, const float* slopes, const float* v_means, float* v_first) {
    const int row = width * channels, rows = height - ffa::SSIM_WINDOW + 1, margin = (ffa::SSIM_WINDOW - 1) * channels;
    const int count = row - margin, pieces = (height + ROWS - 1) / ROWS;
    const std::size_t work_size = (std::size_t(count) + 2 * margin + row) * 3, plane = std::size_t(rows) * count;
    ffa::Buffer<float> work;
    try {
        work.allocate(std::size_t(pictures) * pieces * work_size);
    } catch (...) {
        return 1;
    }
    const ffa::Kernels& kernels = ffa::kernels();
    ffa::parallel_for(threads, pictures * pieces, 1, [&](int begin, int end) {
        for (int piece = begin; piece < end; ++piece) {
            const int picture = piece / pieces, from = piece % pieces * ROWS;
            for (int y = from; y < std::min(from + ROWS, height); ++y) {
                const std::size_t place = (std::size_t(picture) * height + y) * row;
                ffa::SsimRowBackward job;
                job.window = window.of;
                job.row = row, job.channels = channels;
                job.first = first + place, job.second = second + place;
                // the windows that begin k rows above this one, as far as there are such
                job.slopes = slopes + picture * 3 * plane + std::size_t(y) * count;
                job.plane = plane;
                job.first_k = std::max(0, y - rows + 1), job.last_k = std::min(ffa::SSIM_WINDOW - 1, y);
                job.scale = v_means[picture] / (float(rows) * count);
                job.work = work.data() + piece * work_size;
                job.out = v_first + place;
                kernels.ssim_row_backward(job);
            }
        }
    });
    return 0;
}
