// Rotary positions: every query and key is turned by the place of its token in its text.
#include "operand_rows.h"
#include "operators.h"

namespace bgert::ort {

Status* rotary(const Call& call) {
  Tensor x, positions, turns, out;
  if (Status* status = call.matrix(0, x)) return status;
  if (Status* status = call.matrix(2, turns)) return status;
  if (turns.columns % 2 != 0 || x.columns % turns.columns != 0) return call.misfit(2, "is not as wide as a head");
  if (Status* status = call.output(0, x.rows, x.columns, out)) return status;
  if (x.rows == 0) return nullptr;
  if (Status* status = call.vector(1, x.rows, positions)) return status;
  const auto* at = positions.as<const std::int32_t>();
  for (std::size_t i = 0; i < x.rows; ++i) {
    if (at[i] < 0 || static_cast<std::size_t>(at[i]) >= turns.rows) return call.misfit(1, "has one without a row");
  }
  return call.for_blocks(x.rows, kBlock, [&](std::size_t row, std::size_t last) {
    for (; row < last; ++row) {
      const float* turn = turns.floats() + static_cast<std::size_t>(at[row]) * turns.columns;
      for (std::size_t head = row * x.columns; head < (row + 1) * x.columns; head += turns.columns) {
        call.node.kernels->rotate(x.floats() + head, turn, turns.columns, out.floats() + head);
      }
    }
  });
}

}  // namespace bgert::ort
