#include "buffer.h"

#include <atomic>
#include <cstdint>
#include <new>

namespace ffa {
namespace {

// Slots instead of a locked list: a fork() may happen at any moment, and a lock held by another thread would never open
// again in the child. Each slot is owned by whoever swaps its pointer out.
struct Block {
    void* memory;
    std::size_t capacity;
};

constexpr int SLOTS = 48;
constexpr std::size_t LARGEST_KEPT = std::size_t{64} << 20;
constexpr std::size_t TOTAL_KEPT = std::size_t{512} << 20;

std::atomic<Block*> slots[SLOTS];
std::atomic<std::size_t> kept{0};

constexpr std::align_val_t ALIGNMENT{64};

}  // namespace

void* take_memory(std::size_t bytes, std::size_t* capacity) {
    constexpr std::size_t PAGE = 1 << 16;
    const std::size_t wanted = (bytes + PAGE - 1) / PAGE * PAGE + (bytes == 0 ? PAGE : 0);
    for (auto& slot : slots) {
        Block* block = slot.exchange(nullptr);
        if (!block) continue;
        if (block->capacity >= wanted && block->capacity <= 2 * wanted) {
            void* memory = block->memory;
            *capacity = block->capacity;
            kept -= block->capacity;
            delete block;
            return memory;
        }
        Block* empty = nullptr;
        if (!slot.compare_exchange_strong(empty, block)) {  // another thread filled the slot meanwhile
            kept -= block->capacity;
            ::operator delete(block->memory, ALIGNMENT);
            delete block;
        }
    }
    *capacity = wanted;
    return ::operator new(wanted, ALIGNMENT);
}

void return_memory(void* memory, std::size_t capacity) {
    Block* block = nullptr;
    if (capacity <= LARGEST_KEPT && kept.load() + capacity <= TOTAL_KEPT) block = new (std::nothrow) Block{memory, capacity};
    if (block) {
        kept += capacity;
        for (auto& slot : slots) {
            Block* empty = nullptr;
            if (slot.compare_exchange_strong(empty, block)) return;
        }
        kept -= capacity;
        delete block;
    }
    ::operator delete(memory, ALIGNMENT);
}

}  // namespace ffa
