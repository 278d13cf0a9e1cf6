#include "bins.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "parallel.h"

namespace ffa {
namespace {

constexpr int DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, PASSES = 3;  // 33 bits hold the 32 of a key

struct Keyed {
    std::uint32_t key;
    int index;
};

}  // namespace

bool sort_by_depth(View& view, int count) {
    Buffer<Keyed> from_buffer, to_buffer;
    from_buffer.allocate(count);
    to_buffer.allocate(count);
    view.first_pair.allocate(static_cast<std::size_t>(count) + 1);
    int histogram[PASSES][DIGITS] = {};
    std::int64_t pairs = 0;
    int drawn = 0;
    Keyed *from = from_buffer.data(), *to = to_buffer.data();
    for (int i = 0; i < count; ++i) {
        view.first_pair[i] = static_cast<int>(pairs);
        const int tiles = view.boxes[i].tiles();
        if (!tiles) continue;
        pairs += tiles;
        if (pairs > std::numeric_limits<int>::max()) return false;
        const std::uint32_t key = view.depth_keys[i];
        from[drawn++] = {key, i};
        for (int pass = 0; pass < PASSES; ++pass) ++histogram[pass][key >> (pass * DIGIT_BITS) & (DIGITS - 1)];
    }
    view.first_pair[count] = view.first_pair_end = static_cast<int>(pairs);
    view.drawn = drawn;

    for (int pass = 0; pass < PASSES; ++pass) {
        int sum = 0;
        bool all_equal = false;
        for (int& entry : histogram[pass]) {
            all_equal |= entry == drawn;
            sum += std::exchange(entry, sum);
        }
        if (all_equal) continue;
        for (int i = 0; i < drawn; ++i) to[histogram[pass][from[i].key >> (pass * DIGIT_BITS) & (DIGITS - 1)]++] = from[i];
        std::swap(from, to);
    }
    view.order.allocate(drawn);
    for (int i = 0; i < drawn; ++i) view.order[i] = from[i].index;
    return true;
}

void bin_into_tiles(View& view, int tiles_x, int tiles_y, bool with_slots, int threads) {
    const int tiles = tiles_x * tiles_y;
    view.tile_start.allocate(static_cast<std::size_t>(tiles) + 1);
    view.list.allocate(view.pairs());
    if (with_slots) view.slots.allocate(view.pairs());

    // Each segment of the depth order counts, then fills, on its own; segment after segment inside a tile keeps the order.
    const int segments = std::max(1, std::min(threads, view.drawn / 2048));
    Buffer<int> cursor_buffer;
    cursor_buffer.allocate(static_cast<std::size_t>(segments) * tiles);
    int* cursors = cursor_buffer.data();
    const auto segment_start = [&](int s) { return static_cast<int>(std::int64_t{view.drawn} * s / segments); };

    parallel_for(threads, segments, 1, [&](int begin, int end) {
        for (int s = begin; s < end; ++s) {
            int* cursor = cursors + static_cast<std::size_t>(s) * tiles;
            std::fill(cursor, cursor + tiles, 0);
            for (int i = segment_start(s); i < segment_start(s + 1); ++i) {
                const TileBox box = view.boxes[view.order[i]];
                for (int y = box.y0; y < box.y1; ++y)
                    for (int x = box.x0; x < box.x1; ++x) ++cursor[y * tiles_x + x];
            }
        }
    });
    int sum = 0;
    for (int t = 0; t < tiles; ++t) {
        view.tile_start[t] = sum;
        for (int s = 0; s < segments; ++s) sum += std::exchange(cursors[static_cast<std::size_t>(s) * tiles + t], sum);
    }
    view.tile_start[tiles] = sum;
    parallel_for(threads, segments, 1, [&](int begin, int end) {
        for (int s = begin; s < end; ++s) {
            int* cursor = cursors + static_cast<std::size_t>(s) * tiles;
            for (int i = segment_start(s); i < segment_start(s + 1); ++i) {
                const int index = view.order[i];
                const TileBox box = view.boxes[index];
                int pair = with_slots ? view.first_pair[index] : 0;
                for (int y = box.y0; y < box.y1; ++y) {
                    for (int x = box.x0; x < box.x1; ++x) {
                        const int place = cursor[y * tiles_x + x]++;
                        view.list[place] = index;
                        if (with_slots) view.slots[place] = pair++;
                    }
                }
            }
        }
    });
}

}  // namespace ffa
