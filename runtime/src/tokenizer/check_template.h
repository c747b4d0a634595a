// What the layout of rows relies on, whoever made the template.
#pragma once

#include "batch_encoder.h"

namespace bgert {

constexpr std::size_t kMostTemplateTokens = 512;  // each row gets them; real templates have four

/// The template, if rows can be laid out by it; see BatchEncoder.
Template checked(Template layout, const TextModel& model, bool pair);

}  // namespace bgert
