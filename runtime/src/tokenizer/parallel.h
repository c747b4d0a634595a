// A loop shared by threads that live as long as the loop, so that nothing is left over for a fork to break.
#pragma once

#include <cstddef>
#include <functional>

namespace bgert {

/// Calls `work(next)` on up to `threads` threads, the caller's among them. `next()` gives each of 0 .. `count` - 1 to
/// one of them, then `count` for ever. The first exception is thrown again here after all have stopped.
void parallel_for(std::size_t count, std::size_t threads,
                  const std::function<void(const std::function<std::size_t()>& next)>& work);

}  // namespace bgert
