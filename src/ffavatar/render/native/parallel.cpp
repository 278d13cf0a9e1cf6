#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "export.h"

namespace ffa {
namespace {

struct Loop {
    std::atomic<int> next{0};
    int count;
    int chunk;
    RangeFunction function;
    void* context;

    void work() {
        for (;;) {
            const int begin = next.fetch_add(chunk, std::memory_order_relaxed);
            if (begin >= count) return;
            function(context, begin, count - begin < chunk ? count : begin + chunk);
        }
    }
};

class Pool {
public:
    // False when another thread is using the pool, or no worker could be started.
    bool try_run(int helpers, Loop& loop) {
        std::unique_lock<std::mutex> turn(occupied_, std::try_to_lock);
        if (!turn.owns_lock()) return false;
        if (!start_workers(helpers)) return false;
        {
            std::lock_guard<std::mutex> guard(state_);
            loop_ = &loop;
            helpers_wanted_ = helpers;
            helpers_running_ = helpers;
            ++generation_;
        }
        wake_.notify_all();
        loop.work();
        std::unique_lock<std::mutex> guard(state_);
        finished_.wait(guard, [this] { return helpers_running_ == 0; });
        return true;
    }

private:
    bool start_workers(int wanted) {
        try {
            while (static_cast<int>(workers_) < wanted) {
                const int index = workers_;
                std::uint64_t seen;
                {
                    std::lock_guard<std::mutex> guard(state_);
                    seen = generation_;
                }
                std::thread([this, index, seen] { serve(index, seen); }).detach();
                ++workers_;
            }
        } catch (...) {
            return false;
        }
        return true;
    }

    void serve(int index, std::uint64_t seen) {
        for (;;) {
            Loop* loop;
            {
                std::unique_lock<std::mutex> guard(state_);
                wake_.wait(guard, [&] { return generation_ != seen; });
                seen = generation_;
                if (index >= helpers_wanted_) continue;
                loop = loop_;
            }
            loop->work();
            std::lock_guard<std::mutex> guard(state_);
            if (--helpers_running_ == 0) finished_.notify_one();
        }
    }

    std::mutex occupied_;  // held for the whole of one loop
    std::mutex state_;     // guards what follows
    std::condition_variable wake_, finished_;
    Loop* loop_ = nullptr;
    int helpers_wanted_ = 0;
    int helpers_running_ = 0;
    int workers_ = 0;
    std::uint64_t generation_ = 0;
};

// Never destroyed: workers may outlive static destructors. After fork() the child has none of the workers and perhaps a
// mutex that was locked by a thread that is gone, so it leaves the old pool alone and makes its own.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
#if !defined(_WIN32)
    static const int registered = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });
    (void)registered;
#endif
    Pool* current = the_pool.load();
    if (!current) {
        Pool* fresh = new Pool;
        if (the_pool.compare_exchange_strong(current, fresh)) {
            current = fresh;
        } else {
            delete fresh;
        }
    }
    return *current;
}

}  // namespace

void parallel_ranges(int threads, int count, int chunk, RangeFunction function, void* context) {
    if (count <= 0) return;
    if (chunk < 1) chunk = 1;
    Loop loop;
    loop.count = count;
    loop.chunk = chunk;
    loop.function = function;
    loop.context = context;
    const int chunks = count / chunk + (count % chunk != 0);
    const int useful = threads < chunks ? threads : chunks;
    if (useful <= 1 || !pool().try_run(useful - 1, loop)) loop.work();
}

}  // namespace ffa

// Raised whenever an exported function changes its meaning: Python refuses a library that is older than itself.
FFA_EXPORT int ffa_interface_version() { return 3; }
