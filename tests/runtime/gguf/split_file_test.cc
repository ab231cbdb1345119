// Models split over files: one model to whoever opens the first, one clear line where a part is
// missing, out of place or in the way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "runtime/gguf/gguf_file.h"
#include "tests/runtime/gguf/small_file.h"

namespace millrace::testing {
namespace {

using ::testing::HasSubstr;

// Two tensors in the first part, none in the second, one in the third.
std::vector<GgufBuilder> ThreeParts() {
  std::vector<GgufBuilder> parts(3);
  parts[0].Add("general.architecture", "qwen3moe");
  for (std::uint16_t i = 0; i < 3; ++i) {
    parts[i].Add("split.no", i).Add("split.count", std::uint16_t{3}).Add("split.tensors.count", 3);
  }
  parts[0].AddTensor("a", DType::kF32, {2}, FloatBytes(std::vector<float>{1, 2}));
  parts[0].AddTensor("b", DType::kF32, {1}, FloatBytes(std::vector<float>{3}));
  parts[2].AddTensor("c", DType::kF32, {2}, FloatBytes(std::vector<float>{4, 5}));
  return parts;
}

// A folder with the parts as m-0000N-of-00003.gguf; it goes with the object.
class Folder {
 public:
  Folder() : anchor_("", "anchor"), path_(std::filesystem::path(anchor_.path()).parent_path()) {}
  ~Folder() {
    for (const std::string& name : written_) std::filesystem::remove(path_ / name);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string Write(const std::string& name, const GgufBuilder& builder) {
    written_.push_back(name);
    std::ofstream(path_ / name, std::ios::binary) << builder.Build();
    return (path_ / name).string();
  }
  void WriteAll(const std::vector<GgufBuilder>& parts) {
    for (std::size_t i = 0; i < parts.size(); ++i) Write(Name(i + 1), parts[i]);
  }
  static std::string Name(std::size_t number) {
    return "m-0000" + std::to_string(number) + "-of-00003.gguf";
  }
  std::string Path(std::size_t number) const { return (path_ / Name(number)).string(); }

 private:
  TempFile anchor_;
  std::filesystem::path path_;
  std::vector<std::string> written_;
};

TEST(SplitFile, LooksLikeOneFile) {
  Folder folder;
  folder.WriteAll(ThreeParts());
  const auto file = GgufFile::Open(folder.Path(1));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors().size(), 3U);
  EXPECT_EQ((*file)->paths().size(), 3U);
  std::uint64_t bytes = 0;
  for (std::size_t i = 1; i <= 3; ++i) bytes += std::filesystem::file_size(folder.Path(i));
  EXPECT_EQ((*file)->file_bytes(), bytes);
  const GgufTensor* c = (*file)->FindTensor("c");
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(c->part, 2U);
  std::vector<float> values(2);
  ASSERT_TRUE((*file)->Source(*c)->Read(0, std::as_writable_bytes(std::span(values))).ok());
  EXPECT_THAT(values, ::testing::ElementsAre(4, 5));
}

struct Fault {
  const char* message;
  const char* file;  // that the message begins with
  std::function<void(Folder*, std::vector<GgufBuilder>*)> make;
};

TEST(SplitFile, NamesThePartAtFault) {
  const auto part = [](std::uint16_t number, std::uint16_t count) {
    return GgufBuilder().Add("split.no", number).Add("split.count", count);
  };
  const std::vector<Fault> faults = {
      {"No such file", "m-00002-of-00003", [](Folder* f, auto* p) { p->resize(1); }},
      {"keys say part 2 of 3, its name part 3 of 3", "m-00003-of-00003",
       [](Folder* f, auto* p) { (*p)[2] = (*p)[1]; }},
      {"keys say part 2 of 4, its name part 2 of 3", "m-00002-of-00003",
       [&](Folder* f, auto* p) { (*p)[1] = part(1, 4); }},
      {"keys say part 1 of 1, its name part 2 of 3", "m-00002-of-00003",
       [](Folder* f, auto* p) { (*p)[1] = SmallFile(); }},
      {"'a' stands in an earlier part", "m-00003-of-00003",
       [](Folder* f, auto* p) { (*p)[2].AddTensor("a", DType::kF32, {1}); }},
      {"split.tensors.count is 3, but its 3 files hold 4", "m-00001-of-00003",
       [](Folder* f, auto* p) { (*p)[1].AddTensor("d", DType::kF32, {1}); }},
      {"not a GGUF file", "m-00003-of-00003", [](Folder* f, auto* p) { (*p)[2].magic = "what"; }},
  };
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.message);
    Folder folder;
    std::vector<GgufBuilder> parts = ThreeParts();
    fault.make(&folder, &parts);
    folder.WriteAll(parts);
    const auto file = GgufFile::Open(folder.Path(1));
    ASSERT_FALSE(file.ok());
    const std::string message(file.status().message());
    EXPECT_THAT(message, HasSubstr(fault.message));
    EXPECT_THAT(message.substr(0, message.find(": ")), HasSubstr(fault.file));
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(SplitFile, IsOpenedByItsFirstPartUnderItsOwnName) {
  Folder folder;
  const std::vector<GgufBuilder> parts = ThreeParts();
  folder.WriteAll(parts);
  EXPECT_THAT(std::string(GgufFile::Open(folder.Path(2)).status().message()),
              HasSubstr("open " + folder.Path(1)));
  const std::string renamed = folder.Write("renamed.gguf", parts[0]);
  EXPECT_THAT(std::string(GgufFile::Open(renamed).status().message()),
              HasSubstr("its name must end in -00001-of-00003.gguf"));
}

TEST(SplitFile, RefusesKeysThatCannotBe) {
  const auto message = [](const GgufBuilder& builder) {
    return std::string(Parse(builder.Build()).status().message());
  };
  EXPECT_THAT(message(GgufBuilder().Add("split.count", std::uint16_t{2})),
              HasSubstr("no split.no"));
  EXPECT_THAT(message(GgufBuilder().Add("split.count", std::uint16_t{60000})),
              HasSubstr("split.count is 60000; want at most 512"));
  EXPECT_THAT(message(GgufBuilder().Add("split.count", "2")), HasSubstr("split.count: want"));
  EXPECT_THAT(message(GgufBuilder().Add("split.count", -2)), HasSubstr("split.count: want"));
  EXPECT_THAT(message(GgufBuilder().Add("split.count", 2).Add("split.no", 2)),
              HasSubstr("split.no is 2; want at most 1"));
  EXPECT_THAT(message(GgufBuilder().Add("split.count", 2).Add("split.no", 0)),
              HasSubstr("only be found by a path"));
}

}  // namespace
}  // namespace millrace::testing
