#include "unigram_file.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "byte_order.h"

namespace bgert {
namespace {

constexpr std::string_view kMagic = "BGERTUNI";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeader = 40;

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("the unigram file " + what); }

}  // namespace

UnigramFile::UnigramFile(std::string_view bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic) fail("does not begin as one");
  if (bytes.size() < kHeader) fail("is cut off");
  const std::uint32_t version = load_u32(bytes.data() + 8);
  if (version != kVersion) fail("has version " + std::to_string(version) + ", which this bgert does not know");
  const std::uint32_t unk = load_u32(bytes.data() + 12);
  const std::uint64_t count = load_u64(bytes.data() + 16);
  const std::uint64_t piece_bytes = load_u64(bytes.data() + 24);
  const std::uint64_t charsmap_bytes = load_u64(bytes.data() + 32);
  bytes.remove_prefix(kHeader);
  // Each part is compared with what is left, so that no sum can overflow.
  if (count > bytes.size() / 8 || piece_bytes > bytes.size() - 8 * count ||
      charsmap_bytes != bytes.size() - 8 * count - piece_bytes) {
    fail("has other sizes than its header says");
  }
  if (count > kMostTokens) throw std::invalid_argument(too_many_tokens());
  if (unk >= count) fail("has an unknown piece that is not in its vocabulary");
  unk_id = static_cast<TokenId>(unk);
  scores.resize(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = std::bit_cast<double>(load_u64(bytes.data() + 8 * i));
  bytes.remove_prefix(8 * scores.size());
  std::string_view left = bytes.substr(0, static_cast<std::size_t>(piece_bytes));
  charsmap = bytes.substr(left.size());
  pieces.reserve(scores.size());
  while (!left.empty()) {
    const std::size_t size = left.find('\0');
    if (size == std::string_view::npos || pieces.size() == scores.size()) fail("has pieces that do not fit its header");
    pieces.push_back(left.substr(0, size));
    left.remove_prefix(size + 1);
  }
  if (pieces.size() != scores.size()) fail("has fewer pieces than its header says");
}

}  // namespace bgert
