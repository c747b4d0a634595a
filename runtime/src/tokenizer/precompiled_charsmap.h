// SentencePiece's compiled normalisation rules, applied the way HF `tokenizers` applies them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bgert {

/// The blob is: u32 size of the trie in bytes, the trie (a Darts double array of little-endian u32), then the
/// replacements, each ended by a NUL. A value of the trie is the offset of a replacement. An empty blob has no rules.
class PrecompiledCharsmap {
 public:
  PrecompiledCharsmap() = default;

  /// Throws std::invalid_argument if the blob is not consistent.
  explicit PrecompiledCharsmap(std::string_view blob);

  bool empty() const { return units_.empty(); }

  /// The replacement of the shortest rule that begins `text`, which HF takes; none if no rule does.
  std::optional<std::string_view> transform(std::string_view text) const;

  /// Whether a rule may begin one of the texts that begin with these bytes.
  bool may_transform(std::string_view prefix) const;

  /// Appends the normal form of a text, cluster by cluster.
  void normalize(std::string_view text, std::string& out) const;

 private:
  bool step(std::size_t& node, unsigned char byte, bool& leaf) const;
  std::optional<std::string_view> replacement(std::size_t node) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

/// Clusters of at least this many bytes are normalised character by character.
constexpr std::size_t kLongCluster = 6;

}  // namespace bgert
