#include "added_tokens.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "unicode.h"
#include "utf8.h"

namespace bgert {
namespace {

bool is_word(char32_t cp) { return (unicode::flags(cp) & unicode::kWord) != 0; }
bool is_space(char32_t cp) { return (unicode::flags(cp) & unicode::kWhitespace) != 0; }

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8_before(text.data(), text.data() + text.size()).code_point);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8(text.data(), text.data() + text.size()).code_point);
}

/// Where the whitespace that ends `text` begins.
std::size_t trailing_space(std::string_view text) {
  std::size_t stop = text.size();
  while (stop > 0) {
    const Decoded last = decode_utf8_before(text.data(), text.data() + stop);
    if (!is_space(last.code_point)) break;
    stop -= last.length;
  }
  return stop;
}

/// Where the whitespace that begins `text` ends.
std::size_t leading_space(std::string_view text) {
  std::size_t start = 0;
  while (start < text.size()) {
    const Decoded next = decode_utf8(text.data() + start, text.data() + text.size());
    if (!is_space(next.code_point)) break;
    start += next.length;
  }
  return start;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const std::vector<std::string>& patterns)
    : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (patterns[i].empty()) {
      throw std::invalid_argument("the added token of id " + std::to_string(tokens_[i].id) + " normalises to nothing");
    }
    trie_.insert(0, patterns[i], static_cast<std::int32_t>(i));
    first_bytes_.set(static_cast<unsigned char>(patterns[i].front()));
  }
  if (first_bytes_.count() == 1) only_first_byte_ = static_cast<unsigned char>(patterns.front().front());
}

bool AddedTokens::find(std::string_view text, std::size_t from, Found& found) const {
  if (tokens_.empty()) return false;
  for (std::size_t i = from; i < text.size(); ++i) {
    if (only_first_byte_ >= 0) {
      const void* next = std::memchr(text.data() + i, only_first_byte_, text.size() - i);
      if (next == nullptr) return false;
      i = static_cast<std::size_t>(static_cast<const char*>(next) - text.data());
    } else if (!first_bytes_[static_cast<unsigned char>(text[i])]) {
      continue;
    }
    const ByteTrie::Match match = trie_.longest(0, text.substr(i));
    if (match.value != ByteTrie::kNone) {
      found = {static_cast<std::size_t>(match.value), i, i + match.length};
      return true;
    }
  }
  return false;
}

void AddedTokens::Cursor::search() {
  Found found;
  while (tokens_.find(text_, search_, found)) {
    search_ = found.stop;
    const AddedToken& token = tokens_.tokens_[found.index];
    if (split_special_ && token.special) continue;
    if (token.single_word &&
        (ends_with_word(text_.substr(0, found.start)) || starts_with_word(text_.substr(found.stop)))) {
      continue;
    }
    token_start_ = found.start;
    // Whitespace is looked at once, however many tokens are found in it.
    if (token.lstrip) {
      token_start_ = done_;
      if (done_ < found.start) token_start_ += trailing_space(text_.substr(done_, found.start - done_));
    }
    std::size_t stop = found.stop;
    if (token.rstrip) {
      if (stop < space_start_ || stop > space_stop_) {
        space_start_ = stop;
        space_stop_ = stop + leading_space(text_.substr(stop));
      }
      stop = space_stop_;
    }
    if (stop <= token_start_) continue;  // a token of whitespace, which the one before stripped
    token_ = {text_.substr(token_start_, stop - token_start_), token.id};
    pending_ = true;
    return;
  }
  search_ = text_.size();
}

bool AddedTokens::Cursor::next(Segment& segment) {
  if (!pending_) {
    if (search_ < text_.size()) search();
    if (!pending_) {
      if (done_ >= text_.size()) return false;
      segment = {text_.substr(done_), Segment::kText};
      done_ = text_.size();
      return true;
    }
    if (done_ < token_start_) {
      segment = {text_.substr(done_, token_start_ - done_), Segment::kText};
      done_ = token_start_;
      return true;
    }
  }
  segment = token_;
  done_ = token_start_ + token_.text.size();
  pending_ = false;
  return true;
}

AddedTokenSets partition(const std::vector<AddedToken>& tokens, std::size_t vocab_size) {
  AddedTokenSets sets;
  sets.id_count = vocab_size;
  if (tokens.size() > kMostTokens) throw std::invalid_argument("there are too many added tokens");
  std::unordered_set<std::string_view> seen;
  for (const AddedToken& token : tokens) {
    const auto fail = [&token](const char* what) {
      throw std::invalid_argument("the added token of id " + std::to_string(token.id) + " " + what);
    };
    if (token.id < 0 || static_cast<std::size_t>(token.id) >= vocab_size + tokens.size()) fail("is out of range");
    if (token.content.empty()) fail("is empty");
    if (token.content.size() > kMostTokenBytes) fail("is too long");
    if (!is_utf8(token.content)) fail("is not UTF-8");
    if (!seen.insert(token.content).second) fail("is there twice");
    sets.id_count = std::max(sets.id_count, static_cast<std::size_t>(token.id) + 1);
  }
  // HF looks up special tokens before the others; the first of two equal patterns counts.
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokens) {
      if (token.special == special) (token.normalized ? sets.normalized : sets.raw).push_back(token);
    }
  }
  return sets;
}

}  // namespace bgert
