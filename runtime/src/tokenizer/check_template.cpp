#include "check_template.h"

#include <stdexcept>
#include <string>

namespace bgert {

Template checked(Template layout, const TextModel& model, bool pair) {
  const auto fail = [pair](const std::string& what) {
    throw std::invalid_argument(std::string("the template of ") + (pair ? "pairs " : "single texts ") + what);
  };
  if (!pair && !layout.middle.ids.empty()) fail("has tokens between two texts");
  if (layout.size() > kMostTemplateTokens) fail("has " + std::to_string(layout.size()) + " tokens");
  for (const TemplatePart* part : {&layout.prefix, &layout.middle, &layout.suffix}) {
    for (const TokenId id : part->ids) {
      if (id < 0 || static_cast<std::size_t>(id) >= model.id_count()) {
        fail("has the id " + std::to_string(id) + ", which the tokenizer does not");
      }
    }
  }
  for (const std::int32_t type :
       {layout.prefix.type, layout.first_type, layout.middle.type, layout.second_type, layout.suffix.type}) {
    if (type < 0) fail("has the token type " + std::to_string(type));
  }
  return layout;
}

}  // namespace bgert
