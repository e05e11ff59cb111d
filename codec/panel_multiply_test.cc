#include "codec/panel_multiply.h"

#include <numeric>
#include <vector>

#include "codec/float16.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

struct Shape {
  int rows;
  int columns;
  int tokens;
};

class PanelMultiplyTest : public testing::TestWithParam<Shape> {
 protected:
  PanelMultiplyTest() {
    TestRandom random(7);
    for (int i = 0; i < shape_.rows * shape_.columns; ++i)
      halves_.push_back(HalfFromFloat(static_cast<float>(random.Normal() / 8)));
    matrix_ = {reinterpret_cast<const char*>(halves_.data()), shape_.rows, shape_.columns};
    for (int32_t row = 0; row < shape_.rows; row += 2) rows_.push_back(row);
  }

  std::vector<float> RandomPanels(int64_t rows) {
    TestRandom random(8);
    std::vector<float> panels(PanelFloats(rows, shape_.tokens));
    for (float& value : panels) value = static_cast<float>(random.Normal());
    return panels;
  }
  static float At(const std::vector<float>& panels, int64_t rows, int64_t row, int64_t column) {
    return panels[((column / kPanelColumns) * rows + row) * kPanelColumns + column % kPanelColumns];
  }

  const Shape shape_ = GetParam();
  std::vector<uint16_t> halves_;
  HalfMatrix matrix_;
  std::vector<int32_t> rows_;
  PanelScratch scratch_;
};

TEST_P(PanelMultiplyTest, RowsAgreeWithThePlainProduct) {
  const std::vector<float> in = RandomPanels(shape_.columns);
  std::vector<float> out(PanelFloats(rows_.size(), shape_.tokens), 99.0f);
  MultiplyRows(matrix_, rows_, in.data(), PanelCount(shape_.tokens), out.data(), scratch_);
  for (size_t i = 0; i < rows_.size(); ++i) {
    for (int t = 0; t < shape_.tokens; ++t) {
      double sum = 0;
      for (int c = 0; c < shape_.columns; ++c)
        sum += double{FloatFromHalf(halves_[rows_[i] * shape_.columns + c])} *
               At(in, shape_.columns, c, t);
      ASSERT_NEAR(At(out, rows_.size(), i, t), sum, 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PanelMultiplyTest,
                         testing::Values(Shape{1, 1, 1}, Shape{5, 7, 3}, Shape{12, 12, 32},
                                         Shape{24, 13, 33}, Shape{64, 64, 70}, Shape{37, 600, 40},
                                         Shape{1100, 25, 64}));

}  // namespace
}  // namespace kvstream
