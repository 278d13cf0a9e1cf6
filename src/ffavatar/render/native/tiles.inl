// Compositing one tile, forwards and backwards. Included by kernels.inl.
//
// A vector holds a block of BLOCK_W x BLOCK_H pixels: splats are small and round, so squarer blocks waste fewer lanes. The
// blocks a splat may touch are the bits of one word, walked in a single loop without further tests: on splats a few blocks
// wide, mispredicted branches cost more than the arithmetic they would save.
// Transmittance is kept with its sign: negative = this pixel is full (or outside the picture) and takes no more splats,
// which needs no test of its own: from there on, what a splat would leave is never above MIN_TRANSMITTANCE.

constexpr int BLOCKS_X = TILE_W / BLOCK_W, BLOCKS_Y = TILE_H / BLOCK_H, BLOCKS = BLOCKS_X * BLOCKS_Y;
static_assert(BLOCK_W * BLOCK_H == LANES, "a block fills a vector");
static_assert(BLOCKS <= 64, "blocks are bits of one word");

typedef std::uint64_t BlockSet;  // bit by * BLOCKS_X + bx

constexpr BlockSet first_column() {
    BlockSet set = 0;
    for (int by = 0; by < BLOCKS_Y; ++by) set |= BlockSet{1} << (by * BLOCKS_X);
    return set;
}
constexpr BlockSet FIRST_COLUMN = first_column();

// Bits first .. last.
static inline BlockSet bits(int first, int last) { return (~BlockSet{0} >> (63 - last)) & (~BlockSet{0} << first); }

struct Lanes {
    Vec x, y;  // pixel centres inside a block
};

static inline Lanes lane_positions() {
    Lanes lanes;
    for (int i = 0; i < LANES; ++i) {
        lanes.x[i] = i % BLOCK_W + 0.5f;
        lanes.y[i] = i / BLOCK_W + 0.5f;
    }
    return lanes;
}

// A tile's pixels: where the blocks lie and which of them still take splats.
struct Blocks {
    float x[BLOCKS], y[BLOCKS];  // first pixel, relative to the tile
    float width, height;         // pixels of the tile inside the picture
    BlockSet open;

    // The blocks with pixel centres within half_w, half_h of (x, y), closed ones included.
    BlockSet within(float centre_x, float centre_y, float half_w, float half_h) const {
        const float low_x = centre_x - half_w - 0.5f, high_x = centre_x + half_w - 0.5f;  // pixel indices
        const float low_y = centre_y - half_h - 0.5f, high_y = centre_y + half_h - 0.5f;
        const int x0 = (int)__builtin_ceilf(low_x > 0.0f ? low_x : 0.0f), y0 = (int)__builtin_ceilf(low_y > 0.0f ? low_y : 0.0f);
        const int x1 = (int)(high_x < width - 1.0f ? high_x : width - 1.0f);
        const int y1 = (int)(high_y < height - 1.0f ? high_y : height - 1.0f);
        if (x1 < x0 || y1 < y0) return 0;  // the tile list is exact, but its last tiles may lie outside the picture
        const BlockSet rows = FIRST_COLUMN & bits(y0 / BLOCK_H * BLOCKS_X, y1 / BLOCK_H * BLOCKS_X);
        return rows * bits(x0 / BLOCK_W, x1 / BLOCK_W);
    }
};

template <class Job>
static inline Blocks open_tile(const Job& job, const Lanes& lanes, Vec transmittance[BLOCKS]) {
    Blocks blocks;
    const int w = job.width - job.x, h = job.height - job.y;
    blocks.width = (float)(w < TILE_W ? w : TILE_W);
    blocks.height = (float)(h < TILE_H ? h : TILE_H);
    blocks.open = 0;
    for (int i = 0; i < BLOCKS; ++i) {
        blocks.x[i] = (float)(i % BLOCKS_X * BLOCK_W);
        blocks.y[i] = (float)(i / BLOCKS_X * BLOCK_H);
        const Mask inside = both(gt(all(blocks.width - blocks.x[i]), lanes.x), gt(all(blocks.height - blocks.y[i]), lanes.y));
        transmittance[i] = choose(inside, all(1.0f), all(-1.0f));
        if (any(inside)) blocks.open |= BlockSet{1} << i;
    }
    return blocks;
}

struct PixelPlace {
    int block, lane;
    std::int64_t pixel;  // in the picture
};

template <class Job>
static inline PixelPlace place(const Job& job, int px, int py) {
    return {py / BLOCK_H * BLOCKS_X + px / BLOCK_W, py % BLOCK_H * BLOCK_W + px % BLOCK_W,
            (std::int64_t)(job.y + py) * job.width + job.x + px};
}

template <int D>
static void forward_tile(const TileForward& job) {
    alignas(64) Vec transmittance[BLOCKS], color[BLOCKS][D];
    const Lanes lanes = lane_positions();
    Blocks blocks = open_tile(job, lanes, transmittance);
    for (int i = 0; i < BLOCKS; ++i)
        for (int d = 0; d < D; ++d) color[i][d] = Vec{};

    int k = 0;
    for (; k < job.count && blocks.open; ++k) {
        const int ahead = k + 8 < job.count ? k + 8 : job.count - 1;
        __builtin_prefetch(&job.splats[job.list[ahead]]);
        const int index = job.list[k];
        const Splat& splat = job.splats[index];
        const float* rgb = job.colors + index * job.color_stride;
        const float x = splat.x - job.x, y = splat.y - job.y;
        BlockSet left = blocks.within(x, y, splat.half_w, splat.half_h) & blocks.open;
        while (left) {
            const int i = __builtin_ctzll(left);
            left &= left - 1;
            const Vec before = transmittance[i];
            const Vec dx = (x - blocks.x[i]) - lanes.x, dy = (y - blocks.y[i]) - lanes.y;
            const Vec eighth_log2 = (splat.peak - splat.a * dx * dx) - dy * (splat.c * dy + splat.b * dx);
            const Mask hit = ge(eighth_log2, all(-LOG2_255 / 8));
            const Vec alpha = smaller(exp2_of_8(eighth_log2), all(MAX_ALPHA));
            const Vec after = before - before * alpha;
            const Mask taken = both(hit, gt(after, all(MIN_TRANSMITTANCE)));
            const Vec weight = keep(taken, before * alpha);
            for (int d = 0; d < D; ++d) color[i][d] += weight * rgb[d];
            const Vec now = choose(taken, after, negated_where(first_only(hit, taken), before));
            transmittance[i] = now;
            if (all_negative(now)) blocks.open &= ~(BlockSet{1} << i);
        }
    }
    *job.used = k;

    for (int py = 0; py < (int)blocks.height; ++py) {
        for (int px = 0; px < (int)blocks.width; ++px) {
            const PixelPlace at = place(job, px, py);
            const float rest = __builtin_fabsf(transmittance[at.block][at.lane]);
            float* out = job.out_colors + at.pixel * job.channels;
            for (int d = 0; d < D; ++d)
                out[d] = color[at.block][d][at.lane] + (job.background ? rest * job.background[d] : 0.0f);
            job.out_alphas[at.pixel] = 1.0f - rest;
        }
    }
}

// With w_i = alpha_i T_i and q_i = <cotangent, colour_i> (+ the cotangent of alpha), the loss changes with alpha_k by
//   T_k q_k - (sum of w_i q_i behind k, background included) / (1 - alpha_k),
// so walking front to back again needs only the sum still to come: it starts as <cotangent, output>.
template <int D>
static void backward_tile(const TileBackward& job) {
    constexpr int RECORD = MOMENTS + D;
    alignas(64) Vec transmittance[BLOCKS], behind[BLOCKS], v_alpha[BLOCKS], v_color[BLOCKS][D];
    const Lanes lanes = lane_positions();
    Blocks blocks = open_tile(job, lanes, transmittance);
    for (int i = 0; i < BLOCKS; ++i) {
        behind[i] = v_alpha[i] = Vec{};
        for (int d = 0; d < D; ++d) v_color[i][d] = Vec{};
    }
    for (int py = 0; py < (int)blocks.height; ++py) {
        for (int px = 0; px < (int)blocks.width; ++px) {
            const PixelPlace at = place(job, px, py);
            const float of_alpha = job.v_alphas ? job.v_alphas[at.pixel] : 0.0f;
            float sum = of_alpha * job.out_alphas[at.pixel];
            for (int d = 0; d < D; ++d) {
                const float of_color = job.v_colors[at.pixel * job.channels + d];
                v_color[at.block][d][at.lane] = of_color;
                sum += of_color * job.out_colors[at.pixel * job.channels + d];
            }
            v_alpha[at.block][at.lane] = of_alpha;
            behind[at.block][at.lane] = sum;
        }
    }

    for (int k = 0; k < job.used; ++k) {
        const int ahead = k + 8 < job.count ? k + 8 : job.count - 1;
        __builtin_prefetch(&job.splats[job.list[ahead]]);
        __builtin_prefetch(job.records + (std::int64_t)job.slots[ahead] * RECORD, 1);
        const int index = job.list[k];
        const Splat& splat = job.splats[index];
        const float* rgb = job.colors + index * job.color_stride;
        const float x = splat.x - job.x, y = splat.y - job.y;
        Vec sums[RECORD];  // s, s dx, s dy, s dx^2, s dx dy, s dy^2, then the colour's gradient
        for (int i = 0; i < RECORD; ++i) sums[i] = Vec{};
        BlockSet left = blocks.within(x, y, splat.half_w, splat.half_h) & blocks.open;
        while (left) {
            const int i = __builtin_ctzll(left);
            left &= left - 1;
            const Vec before = transmittance[i];
            const Vec dx = (x - blocks.x[i]) - lanes.x, dy = (y - blocks.y[i]) - lanes.y;
            const Vec eighth_log2 = (splat.peak - splat.a * dx * dx) - dy * (splat.c * dy + splat.b * dx);
            const Mask hit = ge(eighth_log2, all(-LOG2_255 / 8));
            const Vec unclamped = exp2_of_8(eighth_log2), alpha = smaller(unclamped, all(MAX_ALPHA));
            const Vec after = before - before * alpha;
            const Mask taken = both(hit, gt(after, all(MIN_TRANSMITTANCE)));
            const Vec weight = keep(taken, before * alpha);
            Vec q = v_alpha[i];
            for (int d = 0; d < D; ++d) {
                q += v_color[i][d] * rgb[d];
                sums[MOMENTS + d] += weight * v_color[i][d];
            }
            const Vec rest = behind[i] - weight * q;
            behind[i] = rest;
            const Vec of_alpha = before * q - rest / (1.0f - alpha);
            const Vec s = keep(both(taken, ge(all(MAX_ALPHA), unclamped)), -unclamped * of_alpha);
            const Vec s_dx = s * dx, s_dy = s * dy;
            sums[0] += s;
            sums[1] += s_dx;
            sums[2] += s_dy;
            sums[3] += s_dx * dx;
            sums[4] += s_dx * dy;
            sums[5] += s_dy * dy;
            const Vec now = choose(taken, after, negated_where(first_only(hit, taken), before));
            transmittance[i] = now;
            if (all_negative(now)) blocks.open &= ~(BlockSet{1} << i);
        }
        store_totals<RECORD>(sums, job.records + (std::int64_t)job.slots[k] * RECORD);
    }
    for (int k = job.used; k < job.count; ++k) {
        float* record = job.records + (std::int64_t)job.slots[k] * RECORD;
        for (int i = 0; i < RECORD; ++i) record[i] = 0.0f;
    }
}
