// Compositing one tile, forwards and backwards. Included by kernels.inl.
//
// A vector holds a block of BLOCK_W x BLOCK_H pixels: splats are small and round, so squarer blocks waste fewer lanes.
// Transmittance is kept with its sign: negative = this pixel is full (or outside the picture) and takes no more splats.

constexpr int BLOCKS_X = TILE_W / BLOCK_W, BLOCKS_Y = TILE_H / BLOCK_H;
static_assert(BLOCK_W * BLOCK_H == LANES, "a block fills a vector");
static_assert(BLOCKS_Y <= 31, "rows of blocks are kept as bits");

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

// The blocks along one axis that hold pixel centres within `half` of `centre`: [first, last], empty if last < first.
struct BlockSpan {
    int first, last;
};

static inline BlockSpan blocks_within(float centre, float half, float size, int block) {
    const float low = centre - half - 0.5f, high = centre + half - 0.5f;  // pixel indices
    if (!(high >= 0.0f && low <= size - 1.0f)) return {0, -1};
    const int first = low > 0.0f ? (int)__builtin_ceilf(low) : 0;
    const int last = high < size - 1.0f ? (int)high : (int)size - 1;
    return last < first ? BlockSpan{0, -1} : BlockSpan{first / block, last / block};
}

static inline unsigned bits_of(BlockSpan span) { return (2u << span.last) - (1u << span.first); }

// The pixels' state at the start of a tile, and which blocks still have a pixel that takes splats.
struct Open {
    unsigned rows[BLOCKS_X];  // bit by: block (bx, by) is open
    unsigned any_rows;
    float width, height;  // pixels of the tile inside the picture

    void gather() {
        any_rows = 0;
        for (int bx = 0; bx < BLOCKS_X; ++bx) any_rows |= rows[bx];
    }
};

template <class Job>
static inline Open open_tile(const Job& job, const Lanes& lanes, Vec transmittance[BLOCKS_X][BLOCKS_Y]) {
    Open open;
    const int w = job.width - job.x, h = job.height - job.y;
    open.width = (float)(w < TILE_W ? w : TILE_W);
    open.height = (float)(h < TILE_H ? h : TILE_H);
    for (int bx = 0; bx < BLOCKS_X; ++bx) {
        open.rows[bx] = 0;
        for (int by = 0; by < BLOCKS_Y; ++by) {
            const Mask inside = both(gt(all(open.width - bx * BLOCK_W), lanes.x), gt(all(open.height - by * BLOCK_H), lanes.y));
            transmittance[bx][by] = choose(inside, all(1.0f), all(-1.0f));
            if (any(inside)) open.rows[bx] |= 1u << by;
        }
    }
    open.gather();
    return open;
}

static inline Vec negated(Vec a) { return (Vec)((IntVec)a | (int)0x80000000); }

template <int D>
static void forward_tile(const TileForward& job) {
    alignas(64) Vec transmittance[BLOCKS_X][BLOCKS_Y], color[BLOCKS_X][BLOCKS_Y][D];
    const Lanes lanes = lane_positions();
    Open open = open_tile(job, lanes, transmittance);
    for (int bx = 0; bx < BLOCKS_X; ++bx)
        for (int by = 0; by < BLOCKS_Y; ++by)
            for (int d = 0; d < D; ++d) color[bx][by][d] = Vec{};

    int k = 0;
    for (; k < job.count && open.any_rows; ++k) {
        const int ahead = k + 8 < job.count ? k + 8 : job.count - 1;
        __builtin_prefetch(&job.splats[job.list[ahead]]);
        const int index = job.list[k];
        const Splat& splat = job.splats[index];
        const float* rgb = job.colors + index * job.color_stride;
        const float x = splat.x - job.x, y = splat.y - job.y;
        const BlockSpan columns = blocks_within(x, splat.half_w, open.width, BLOCK_W);
        const BlockSpan rows = blocks_within(y, splat.half_h, open.height, BLOCK_H);
        if (rows.last < rows.first) continue;
        const unsigned wanted = bits_of(rows);
        bool closed = false;
        for (int bx = columns.first; bx <= columns.last; ++bx) {
            unsigned left = wanted & open.rows[bx];
            if (!left) continue;
            const Vec dx = (x - bx * BLOCK_W) - lanes.x;
            const Vec base = splat.log2_opacity - splat.a * dx * dx, slope = splat.b * dx;
            do {
                const int by = __builtin_ctz(left);
                left &= left - 1;
                const Vec before = transmittance[bx][by];
                const Vec dy = (y - by * BLOCK_H) - lanes.y;
                const Vec log2_alpha = base - dy * (splat.c * dy + slope);
                const Mask hit = both(ge(log2_alpha, all(-LOG2_255)), gt(before, Vec{}));
                if (!any(hit)) continue;
                const Vec alpha = smaller(exp2_of(log2_alpha), all(MAX_ALPHA));
                const Vec after = before - before * alpha;
                const Mask taken = both(hit, gt(after, all(MIN_TRANSMITTANCE)));
                const Vec weight = keep(taken, before * alpha);
                for (int d = 0; d < D; ++d) color[bx][by][d] += weight * rgb[d];
                Vec now = choose(taken, after, before);
                const Mask full = first_only(hit, taken);
                if (__builtin_expect(any(full), 0)) {
                    now = choose(full, negated(now), now);
                    if (!any(gt(now, Vec{}))) {
                        open.rows[bx] &= ~(1u << by);
                        closed = true;
                    }
                }
                transmittance[bx][by] = now;
            } while (left);
        }
        if (closed) open.gather();
    }
    *job.used = k;

    for (int py = 0; py < (int)open.height; ++py) {
        for (int px = 0; px < (int)open.width; ++px) {
            const int bx = px / BLOCK_W, by = py / BLOCK_H, lane = py % BLOCK_H * BLOCK_W + px % BLOCK_W;
            const float rest = __builtin_fabsf(transmittance[bx][by][lane]);
            const std::int64_t pixel = (std::int64_t)(job.y + py) * job.width + job.x + px;
            float* out = job.out_colors + pixel * job.channels;
            for (int d = 0; d < D; ++d)
                out[d] = color[bx][by][d][lane] + (job.background ? rest * job.background[d] : 0.0f);
            job.out_alphas[pixel] = 1.0f - rest;
        }
    }
}

// With w_i = alpha_i T_i and q_i = <cotangent, colour_i> (+ the cotangent of alpha), the loss changes with alpha_k by
//   T_k q_k - (sum of w_i q_i behind k, background included) / (1 - alpha_k),
// so walking front to back again needs only the sum still to come: it starts as <cotangent, output>.
template <int D>
static void backward_tile(const TileBackward& job) {
    constexpr int RECORD = MOMENTS + D;
    alignas(64) Vec transmittance[BLOCKS_X][BLOCKS_Y], behind[BLOCKS_X][BLOCKS_Y], v_alpha[BLOCKS_X][BLOCKS_Y];
    alignas(64) Vec v_color[BLOCKS_X][BLOCKS_Y][D];
    const Lanes lanes = lane_positions();
    Open open = open_tile(job, lanes, transmittance);
    for (int bx = 0; bx < BLOCKS_X; ++bx) {
        for (int by = 0; by < BLOCKS_Y; ++by) {
            behind[bx][by] = v_alpha[bx][by] = Vec{};
            for (int d = 0; d < D; ++d) v_color[bx][by][d] = Vec{};
        }
    }
    for (int py = 0; py < (int)open.height; ++py) {
        for (int px = 0; px < (int)open.width; ++px) {
            const int bx = px / BLOCK_W, by = py / BLOCK_H, lane = py % BLOCK_H * BLOCK_W + px % BLOCK_W;
            const std::int64_t pixel = (std::int64_t)(job.y + py) * job.width + job.x + px;
            const float of_alpha = job.v_alphas ? job.v_alphas[pixel] : 0.0f;
            float sum = of_alpha * job.out_alphas[pixel];
            for (int d = 0; d < D; ++d) {
                const float of_color = job.v_colors[pixel * job.channels + d];
                v_color[bx][by][d][lane] = of_color;
                sum += of_color * job.out_colors[pixel * job.channels + d];
            }
            v_alpha[bx][by][lane] = of_alpha;
            behind[bx][by][lane] = sum;
        }
    }

    for (int k = 0; k < job.used; ++k) {
        const int ahead = k + 8 < job.count ? k + 8 : job.count - 1;
        __builtin_prefetch(&job.splats[job.list[ahead]]);
        __builtin_prefetch(job.records + (std::int64_t)job.slots[ahead] * RECORD, 1);
        const int index = job.list[k];
        const Splat& splat = job.splats[index];
        const float* rgb = job.colors + index * job.color_stride;
        float* record = job.records + (std::int64_t)job.slots[k] * RECORD;
        const float x = splat.x - job.x, y = splat.y - job.y;
        const BlockSpan columns = blocks_within(x, splat.half_w, open.width, BLOCK_W);
        const BlockSpan rows = blocks_within(y, splat.half_h, open.height, BLOCK_H);
        const unsigned wanted = rows.last < rows.first ? 0 : bits_of(rows) & open.any_rows;
        bool seen = false, closed = false;
        Vec sums[RECORD];  // s, s dx, s dy, s dx^2, s dx dy, s dy^2, then the colour's gradient
        for (int i = 0; i < RECORD; ++i) sums[i] = Vec{};
        for (int bx = columns.first; wanted && bx <= columns.last; ++bx) {
            unsigned left = wanted & open.rows[bx];
            if (!left) continue;
            const Vec dx = (x - bx * BLOCK_W) - lanes.x;
            const Vec base = splat.log2_opacity - splat.a * dx * dx, slope = splat.b * dx;
            Vec column = Vec{}, column_y = Vec{};  // dx is the same down a column: multiply by it once
            do {
                const int by = __builtin_ctz(left);
                left &= left - 1;
                const Vec before = transmittance[bx][by];
                const Vec dy = (y - by * BLOCK_H) - lanes.y;
                const Vec log2_alpha = base - dy * (splat.c * dy + slope);
                const Mask hit = both(ge(log2_alpha, all(-LOG2_255)), gt(before, Vec{}));
                if (!any(hit)) continue;
                seen = true;
                const Vec unclamped = exp2_of(log2_alpha), alpha = smaller(unclamped, all(MAX_ALPHA));
                const Vec after = before - before * alpha;
                const Mask taken = both(hit, gt(after, all(MIN_TRANSMITTANCE)));
                const Vec weight = keep(taken, before * alpha);
                Vec q = v_alpha[bx][by];
                for (int d = 0; d < D; ++d) {
                    q += v_color[bx][by][d] * rgb[d];
                    sums[MOMENTS + d] += weight * v_color[bx][by][d];
                }
                const Vec rest = behind[bx][by] - weight * q;
                behind[bx][by] = rest;
                const Vec of_alpha = before * q - rest / (1.0f - alpha);
                const Vec s = keep(both(taken, ge(all(MAX_ALPHA), unclamped)), -unclamped * of_alpha);
                const Vec s_dy = s * dy;
                column += s;
                column_y += s_dy;
                sums[5] += s_dy * dy;
                Vec now = choose(taken, after, before);
                const Mask full = first_only(hit, taken);
                if (__builtin_expect(any(full), 0)) {
                    now = choose(full, negated(now), now);
                    if (!any(gt(now, Vec{}))) {
                        open.rows[bx] &= ~(1u << by);
                        closed = true;
                    }
                }
                transmittance[bx][by] = now;
            } while (left);
            const Vec column_x = column * dx;
            sums[0] += column;
            sums[1] += column_x;
            sums[2] += column_y;
            sums[3] += column_x * dx;
            sums[4] += column_y * dx;
        }
        if (seen) {
            store_totals<RECORD>(sums, record);
        } else {
            for (int i = 0; i < RECORD; ++i) record[i] = 0.0f;
        }
        if (closed) open.gather();
    }
    for (int k = job.used; k < job.count; ++k) {
        float* record = job.records + (std::int64_t)job.slots[k] * RECORD;
        for (int i = 0; i < RECORD; ++i) record[i] = 0.0f;
    }
}
