#include "precompiled_charsmap.h"

#include <stdexcept>

#include "byte_order.h"
#include "grapheme.h"
#include "utf8.h"

namespace bgert {
namespace {

// Tables hold the replacement of every code point: one rule may serve many, which multiplies its length.
constexpr std::size_t kMostBytes = 256;

// The fields of a unit, as in Darts-clone.
constexpr std::uint32_t kLeafBit = 1U << 8;
constexpr std::uint32_t kValueMask = (1U << 31) - 1;
constexpr std::uint32_t label(std::uint32_t unit) { return unit & ((1U << 31) | 0xFF); }
constexpr std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); }

}  // namespace

PrecompiledCharsmap::PrecompiledCharsmap(std::string_view blob) {
  if (blob.empty()) return;
  const auto fail = [](const char* what) { throw std::invalid_argument(std::string("precompiled_charsmap: ") + what); };
  if (blob.size() < 4) fail("shorter than its header");
  const std::size_t bytes = load_u32(blob.data());
  blob.remove_prefix(4);
  if (bytes % 4 != 0 || bytes == 0 || bytes > blob.size()) fail("the size of its trie is wrong");
  units_.resize(bytes / 4);
  for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = load_u32(blob.data() + 4 * i);
  replacements_ = blob.substr(bytes);
  if (!is_utf8(replacements_)) fail("its replacements are not UTF-8");
  replacements_.push_back('\0');
  for (std::size_t begin = 0, end; begin < replacements_.size(); begin = end + 1) {
    end = replacements_.find('\0', begin);
    if (end - begin > kMostBytes) fail("a replacement has more than 256 bytes");
  }
}

/// Goes to the child for a byte; `leaf` says whether a rule ends there. False if there is no child.
bool PrecompiledCharsmap::step(std::size_t& node, unsigned char byte, bool& leaf) const {
  node ^= byte;
  if (byte == 0 || node >= units_.size() || label(units_[node]) != byte) return false;
  const std::uint32_t unit = units_[node];
  node ^= offset(unit);
  leaf = (unit & kLeafBit) != 0;
  return true;
}

/// The text that the value at a node points to.
std::optional<std::string_view> PrecompiledCharsmap::replacement(std::size_t node) const {
  if (node >= units_.size()) return std::nullopt;
  const std::size_t at = units_[node] & kValueMask;
  // Into the middle of a character only a damaged trie points.
  if (at >= replacements_.size() || (static_cast<unsigned char>(replacements_[at]) & 0xC0) == 0x80) return std::nullopt;
  return std::string_view(replacements_.data() + at);
}

std::optional<std::string_view> PrecompiledCharsmap::transform(std::string_view text) const {
  if (units_.empty()) return std::nullopt;
  std::size_t node = offset(units_[0]);
  bool leaf = false;
  for (const char c : text) {
    if (!step(node, static_cast<unsigned char>(c), leaf)) return std::nullopt;
    if (leaf) return replacement(node);
  }
  return std::nullopt;
}

bool PrecompiledCharsmap::may_transform(std::string_view prefix) const {
  if (units_.empty()) return false;
  std::size_t node = offset(units_[0]);
  bool leaf = false;
  for (const char c : prefix) {
    if (!step(node, static_cast<unsigned char>(c), leaf)) return false;
    if (leaf) return true;
  }
  return true;
}

void PrecompiledCharsmap::normalize(std::string_view text, std::string& out) const {
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const std::size_t size = grapheme::cluster_size(p, end);
    const std::string_view cluster(p, size);
    p += size;
    if (size < kLongCluster) {
      if (const auto whole = transform(cluster)) {
        out.append(*whole);
        continue;
      }
    }
    for (const char *c = cluster.data(), *stop = c + size; c < stop;) {
      const std::string_view part(c, decode_utf8(c, stop).length);
      out.append(transform(part).value_or(part));
      c += part.size();
    }
  }
}

}  // namespace bgert
