#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace bgert {

void parallel_for(std::size_t count, std::size_t threads,
                  const std::function<void(const std::function<std::size_t()>& next)>& work) {
  std::atomic<std::size_t> position{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const std::function<std::size_t()> next = [&] {
    return std::min(position.fetch_add(1, std::memory_order_relaxed), count);
  };
  const auto guarded = [&] {
    try {
      work(next);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      position.store(count, std::memory_order_relaxed);
    }
  };
  std::vector<std::thread> helpers;
  const std::size_t wanted = std::min(threads, count);
  try {
    helpers.reserve(wanted);
    while (helpers.size() + 1 < wanted) helpers.emplace_back(guarded);
  } catch (const std::exception&) {
    // The system gives no more threads or memory for them; those there are do the work.
  }
  guarded();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace bgert
