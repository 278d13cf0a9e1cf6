// Uninitialised arrays whose memory is kept for the next call: fresh pages would cost more than the work done in them.
#pragma once

#include <cstddef>
#include <utility>

namespace ffa {

void* take_memory(std::size_t bytes, std::size_t* capacity);  // 64-byte aligned; throws std::bad_alloc
void return_memory(void* memory, std::size_t capacity);

template <class T>
class Buffer {
public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), capacity_(other.capacity_) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(); }

    void allocate(std::size_t count) {  // what was inside is lost
        release();
        data_ = static_cast<T*>(take_memory(count * sizeof(T), &capacity_));
    }
    void release() {
        if (data_) return_memory(data_, capacity_);
        data_ = nullptr;
    }
    T* data() const { return data_; }
    T& operator[](std::size_t index) const { return data_[index]; }

private:
    T* data_ = nullptr;
    std::size_t capacity_ = 0;
};

}  // namespace ffa
