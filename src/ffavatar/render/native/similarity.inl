// One row of the similarity of two pictures and of its gradient, LANES values at a time. Included by kernels.inl.

static inline Vec load_vec(const float* from) {
    Vec out;
    __builtin_memcpy(&out, from, sizeof out);
    return out;
}

// out[i] = sum over k of w[k] in[i + k stride]
static inline void blur_row(const float* w, const float* in, int stride, int count, float* out) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        Vec sum = {};
        for (int k = 0; k < SSIM_WINDOW; ++k) sum += w[k] * load_vec(in + i + k * stride);
        __builtin_memcpy(out + i, &sum, sizeof sum);
    }
    for (; i < count; ++i) {
        float sum = 0;
        for (int k = 0; k < SSIM_WINDOW; ++k) sum += w[k] * in[i + k * stride];
        out[i] = sum;
    }
}

static double ssim_row(const SsimRow& job) {
    const int row = job.row, count = row - (SSIM_WINDOW - 1) * job.channels;
    const float* w = job.window;
    float* columns[5];  // sums down the window, of a, b, aa, bb, ab
    float* blurred[5];  // and across it
    for (int p = 0; p < 5; ++p) {
        columns[p] = job.work + (std::int64_t)p * row;
        blurred[p] = job.work + (std::int64_t)5 * row + (std::int64_t)p * count;
    }
    int i = 0;
    for (; i + LANES <= row; i += LANES) {
        Vec sums[5] = {};
        for (int k = 0; k < SSIM_WINDOW; ++k) {
            const std::int64_t at = (std::int64_t)k * row + i;
            const Vec a = load_vec(job.first + at) - 0.5f, b = load_vec(job.second + at) - 0.5f;
            const Vec wa = w[k] * a, wb = w[k] * b;
            sums[0] += wa, sums[1] += wb, sums[2] += wa * a, sums[3] += wb * b, sums[4] += wa * b;
        }
        for (int p = 0; p < 5; ++p) __builtin_memcpy(columns[p] + i, &sums[p], sizeof sums[p]);
    }
    for (; i < row; ++i) {
        float sums[5] = {};
        for (int k = 0; k < SSIM_WINDOW; ++k) {
            const std::int64_t at = (std::int64_t)k * row + i;
            const float a = job.first[at] - 0.5f, b = job.second[at] - 0.5f, wa = w[k] * a, wb = w[k] * b;
            sums[0] += wa, sums[1] += wb, sums[2] += wa * a, sums[3] += wb * b, sums[4] += wa * b;
        }
        for (int p = 0; p < 5; ++p) columns[p][i] = sums[p];
    }
    for (int p = 0; p < 5; ++p) blur_row(w, columns[p], job.channels, count, blurred[p]);
    constexpr float c1 = 0.01f * 0.01f, c2 = 0.03f * 0.03f;
    double total = 0;
    for (i = 0; i < count; ++i) {
        const float ma = blurred[0][i], mb = blurred[1][i], a = ma + 0.5f, b = mb + 0.5f;
        const float variance = blurred[2][i] - ma * ma + blurred[3][i] - mb * mb + c2;
        const float covariance = 2 * (blurred[4][i] - ma * mb) + c2;
        const float squares = a * a + b * b + c1, product = 2 * a * b + c1;
        const float luminance = product / squares, structure = covariance / variance;
        total += luminance * structure;
        columns[0][i] = structure * 2 * (b - a * luminance) / squares;  // by the mean of a, the others fixed
        columns[1][i] = -luminance * structure / variance;              // by the mean of aa
        columns[2][i] = 2 * luminance / variance;                       // by the mean of ab
    }
    if (job.slopes) {
        for (i = 0; i < count; ++i) {
            const float of_aa = columns[1][i], of_ab = columns[2][i];
            job.slopes[i] = columns[0][i] - of_ab * blurred[1][i] - 2 * of_aa * blurred[0][i];
            job.slopes[job.plane + i] = of_aa;
            job.slopes[2 * job.plane + i] = of_ab;
        }
    }
    return total;
}

static void ssim_row_backward(const SsimRowBackward& job) {
    const int row = job.row, margin = (SSIM_WINDOW - 1) * job.channels, count = row - margin, padded = count + 2 * margin;
    const float* w = job.window;
    float *sums = job.work, *blurred = job.work + (std::int64_t)3 * padded;
    for (int p = 0; p < 3; ++p) {
        float* sum = sums + (std::int64_t)p * padded;
        for (int i = 0; i < margin; ++i) sum[i] = sum[margin + count + i] = 0;
        sum += margin;
        const float* slopes = job.slopes + p * job.plane;
        int i = 0;
        for (; i + LANES <= count; i += LANES) {
            Vec total = {};
            for (int k = job.first_k; k <= job.last_k; ++k) total += w[k] * load_vec(slopes - (std::int64_t)k * count + i);
            __builtin_memcpy(sum + i, &total, sizeof total);
        }
        for (; i < count; ++i) {
            float total = 0;
            for (int k = job.first_k; k <= job.last_k; ++k) total += w[k] * slopes[-(std::int64_t)k * count + i];
            sum[i] = total;
        }
        blur_row(w, sums + (std::int64_t)p * padded, job.channels, row, blurred + (std::int64_t)p * row);
    }
    for (int i = 0; i < row; ++i) {
        const float a = job.first[i] - 0.5f, b = job.second[i] - 0.5f;
        job.out[i] = job.scale * (blurred[i] + 2 * a * blurred[row + i] + b * blurred[2 * row + i]);
    }
}
