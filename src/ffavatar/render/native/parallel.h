// A loop over [0, count) shared out among threads.
//
// One pool of sleeping workers serves the process. It survives fork() (the child starts a fresh one), and a caller that
// finds it occupied by another thread simply runs its loop alone, so no caller ever waits for another.
#pragma once

#include <cstddef>

namespace ffa {

using RangeFunction = void (*)(void* context, int begin, int end);

void parallel_ranges(int threads, int count, int chunk, RangeFunction function, void* context);

// Calls body(begin, end) on disjoint ranges of at most `chunk` indices that cover [0, count), with up to `threads` threads
// (the caller included). The order is unspecified: bodies must write to disjoint places. Bodies must not throw.
template <class Body>
void parallel_for(int threads, int count, int chunk, Body&& body) {
    parallel_ranges(
        threads, count, chunk, [](void* context, int begin, int end) { (*static_cast<Body*>(context))(begin, end); },
        &body);
}

}  // namespace ffa
