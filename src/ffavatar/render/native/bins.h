// Depth order and tile lists of one view.
#pragma once

#include <cstdint>

#include "buffer.h"
#include "splat.h"

namespace ffa {

struct View {
    Buffer<Splat> splats;     // (N); only those with a non-empty box are written
    Buffer<TileBox> boxes;    // (N)
    Buffer<std::uint32_t> depth_keys;  // (N)
    Buffer<int> first_pair;   // (N + 1); the Gaussian's pairs are first_pair[i] .. first_pair[i + 1] - 1
    Buffer<int> order;        // (drawn) nearest first
    int drawn = 0;
    Buffer<int> tile_start;   // (tiles + 1) into list
    Buffer<int> list;         // (pairs) Gaussians of each tile, nearest first
    Buffer<int> slots;        // (pairs) the pair's number when counted Gaussian by Gaussian; only for a backward pass
    Buffer<int> used;         // (tiles) see TileForward
    int pairs() const { return first_pair_end; }
    int first_pair_end = 0;
};

// Fills first_pair and order from boxes and depth_keys; equal depths keep the Gaussians' order, as gsplat's sort does.
// False if the pairs are too many to be numbered.
bool sort_by_depth(View& view, int count);

// Fills tile_start, list and, if asked, slots.
void bin_into_tiles(View& view, int tiles_x, int tiles_y, bool with_slots, int threads);

}  // namespace ffa
