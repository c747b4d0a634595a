#include "bpe_file.h"

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "byte_order.h"

namespace bgert {
namespace {

constexpr std::string_view kMagic = "BGERTBPE";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeader = 28;
constexpr std::size_t kMergeBytes = 12;

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("the BPE file " + what); }

}  // namespace

BpeFile::BpeFile(std::string_view bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic) fail("does not begin as one");
  if (bytes.size() < kHeader) fail("is cut off");
  const std::uint32_t version = load_u32(bytes.data() + 8);
  if (version != kVersion) fail("has version " + std::to_string(version) + ", which this bgert does not know");
  const std::size_t count = load_u32(bytes.data() + 12);
  const std::size_t merge_count = load_u32(bytes.data() + 16);
  const std::uint64_t piece_bytes = load_u64(bytes.data() + 20);
  bytes.remove_prefix(kHeader);
  // Each part is compared with what is left, so that no sum can overflow.
  if (merge_count > bytes.size() / kMergeBytes || piece_bytes != bytes.size() - kMergeBytes * merge_count) {
    fail("has other sizes than its header says");
  }
  if (count > kMostTokens) throw std::invalid_argument(too_many_tokens());
  if (count > piece_bytes) fail("has fewer tokens than its header says");
  std::string_view left = bytes.substr(kMergeBytes * merge_count);
  pieces.reserve(count);
  while (!left.empty()) {
    const std::size_t size = left.find('\0');
    if (size == std::string_view::npos || pieces.size() == count) fail("has tokens that do not fit its header");
    pieces.push_back(left.substr(0, size));
    left.remove_prefix(size + 1);
  }
  if (pieces.size() != count) fail("has fewer tokens than its header says");
  merges.reserve(merge_count);
  for (std::size_t i = 0; i < merge_count; ++i) {
    std::size_t ids[3];
    for (std::size_t part = 0; part < 3; ++part) {
      ids[part] = load_u32(bytes.data() + kMergeBytes * i + 4 * part);
      if (ids[part] >= count || pieces[ids[part]].empty()) fail("merges a token that it does not have");
    }
    const std::string_view a = pieces[ids[0]], b = pieces[ids[1]], whole = pieces[ids[2]];
    if (whole.size() != a.size() + b.size() || !whole.starts_with(a) || !whole.ends_with(b)) {
      fail("merges two tokens into another than both");
    }
    merges.push_back({static_cast<TokenId>(ids[0]), static_cast<TokenId>(ids[1]), static_cast<TokenId>(ids[2])});
  }
}

}  // namespace bgert
