// Mean structural similarity of pictures and its gradient. ffavatar/ssim.py holds the readable form and the formula's
// source.

#include <cmath>
#include <cstddef>

#include "buffer.h"
#include "export.h"
#include "parallel.h"

namespace {

constexpr int WINDOW = 11, ROWS = 8;  // rows of a picture that are one piece of work
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;

struct Weights {
    float of[WINDOW];
    Weights() {
        double raw[WINDOW], sum = 0;
        for (int k = 0; k < WINDOW; ++k) {
            const double offset = k - WINDOW / 2;
            sum += raw[k] = std::exp(-offset * offset / (2 * 1.5 * 1.5));
        }
        for (int k = 0; k < WINDOW; ++k) of[k] = static_cast<float>(raw[k] / sum);
    }
};

const Weights weights;

// out[i] = sum over k of w[k] in[i + k stride]
inline void blur_row(const float* in, int stride, int count, float* out) {
    for (int i = 0; i < count; ++i) {
        float sum = 0;
        for (int k = 0; k < WINDOW; ++k) sum += weights.of[k] * in[i + k * stride];
        out[i] = sum;
    }
}

}  // namespace

// first, second (pictures, height, width, channels), sides of at least 11 -> means (pictures). Where `slopes` is given,
// it takes, for every window, the derivatives of its similarity by the means of a, a^2 and a b, with a and b the
// pictures less a half: (pictures, 3, height - 10, (width - 10) channels). 1: out of memory.
FFA_EXPORT int ffa_ssim(int threads, int pictures, int height, int width, int channels, const float* first,
                        const float* second, double* means, float* slopes) {
    const int row = width * channels, rows = height - WINDOW + 1, count = (width - WINDOW + 1) * channels;
    const int pieces = (rows + ROWS - 1) / ROWS;
    const std::size_t work_size = std::size_t(row) * 5 + std::size_t(count) * 5;
    ffa::Buffer<float> work;
    ffa::Buffer<double> totals;  // of each row, summed in one order below
    try {
        work.allocate(std::size_t(pictures) * pieces * work_size);
        totals.allocate(std::size_t(pictures) * rows);
    } catch (...) {
        return 1;
    }
    float* const all_work = work.data();
    double* const all_totals = totals.data();
    ffa::parallel_for(threads, pictures * pieces, 1, [=](int begin, int end) {
        for (int piece = begin; piece < end; ++piece) {
            const int picture = piece / pieces, from = piece % pieces * ROWS;
            float* columns[5];  // sums down the window, of a, b, aa, bb, ab
            float* blurred[5];
            for (int p = 0; p < 5; ++p) {
                columns[p] = all_work + piece * work_size + std::size_t(p) * row;
                blurred[p] = all_work + piece * work_size + std::size_t(row) * 5 + std::size_t(p) * count;
            }
            for (int y = from; y < from + ROWS && y < rows; ++y) {
                for (int p = 0; p < 5; ++p)
                    for (int i = 0; i < row; ++i) columns[p][i] = 0;
                for (int k = 0; k < WINDOW; ++k) {
                    const float* a_row = first + (std::size_t(picture) * height + y + k) * row;
                    const float* b_row = second + (std::size_t(picture) * height + y + k) * row;
                    const float w = weights.of[k];
                    float *c0 = columns[0], *c1 = columns[1], *c2 = columns[2], *c3 = columns[3], *c4 = columns[4];
                    for (int i = 0; i < row; ++i) {
                        const float a = a_row[i] - 0.5f, b = b_row[i] - 0.5f;
                        c0[i] += w * a;
                        c1[i] += w * b;
                        c2[i] += w * a * a;
                        c3[i] += w * b * b;
                        c4[i] += w * a * b;
                    }
                }
                for (int p = 0; p < 5; ++p) blur_row(columns[p], channels, count, blurred[p]);
                float* slope = slopes ? slopes + (std::size_t(picture) * 3 * rows + y) * count : nullptr;
                const std::size_t plane = std::size_t(rows) * count;
                double total = 0;
                for (int i = 0; i < count; ++i) {
                    const float ma = blurred[0][i], mb = blurred[1][i], a = ma + 0.5f, b = mb + 0.5f;
                    const float variance = blurred[2][i] - ma * ma + blurred[3][i] - mb * mb + C2;
                    const float covariance = 2 * (blurred[4][i] - ma * mb) + C2;
                    const float squares = a * a + b * b + C1, product = 2 * a * b + C1;
                    const float luminance = product / squares, structure = covariance / variance;
                    total += luminance * structure;
                    if (!slope) continue;
                    const float of_variance = -luminance * structure / variance, of_covariance = 2 * luminance / variance;
                    slope[i] = structure * 2 * (b - a * luminance) / squares - of_covariance * mb - 2 * of_variance * ma;
                    slope[plane + i] = of_variance;
                    slope[2 * plane + i] = of_covariance;
                }
                all_totals[std::size_t(picture) * rows + y] = total;
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
    const int row = width * channels, rows = height - WINDOW + 1, count = (width - WINDOW + 1) * channels;
    const int margin = (WINDOW - 1) * channels, padded = count + 2 * margin;
    const int pieces = (height + ROWS - 1) / ROWS;
    const std::size_t work_size = std::size_t(padded) * 3 + std::size_t(row) * 3;
    ffa::Buffer<float> work;
    try {
        work.allocate(std::size_t(pictures) * pieces * work_size);
    } catch (...) {
        return 1;
    }
    float* const all_work = work.data();
    ffa::parallel_for(threads, pictures * pieces, 1, [=](int begin, int end) {
        for (int piece = begin; piece < end; ++piece) {
            const int picture = piece / pieces, from = piece % pieces * ROWS;
            const float scale = v_means[picture] / (float(rows) * count);
            float* const sums = all_work + piece * work_size;  // down the windows, with a margin of zeros on both sides
            float* const blurred = sums + std::size_t(padded) * 3;
            for (int y = from; y < from + ROWS && y < height; ++y) {
                for (int i = 0; i < 3 * padded; ++i) sums[i] = 0;
                for (int k = 0; k < WINDOW; ++k) {
                    const int at = y - k;  // the window that begins k rows above
                    if (at < 0 || at >= rows) continue;
                    for (int p = 0; p < 3; ++p) {
                        const float* slope = slopes + ((std::size_t(picture) * 3 + p) * rows + at) * count;
                        float* sum = sums + std::size_t(p) * padded + margin;
                        for (int i = 0; i < count; ++i) sum[i] += weights.of[k] * slope[i];
                    }
                }
                for (int p = 0; p < 3; ++p) blur_row(sums + std::size_t(p) * padded, channels, row, blurred + std::size_t(p) * row);
                const std::size_t place = (std::size_t(picture) * height + y) * row;
                const float *of_a = blurred, *of_aa = blurred + row, *of_ab = blurred + 2 * std::size_t(row);
                for (int i = 0; i < row; ++i) {
                    const float a = first[place + i] - 0.5f, b = second[place + i] - 0.5f;
                    v_first[place + i] = scale * (of_a[i] + 2 * a * of_aa[i] + b * of_ab[i]);
                }
            }
        }
    });
    return 0;
}
