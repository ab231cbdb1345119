// What tells two states of a model's file apart.
#include "runtime/runner/model_digest.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>

#include "tests/runtime/gguf/small_file.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/tiny_model.h"

namespace millrace::testing {
namespace {

class ModelDigestTest : public ::testing::Test {
 protected:
  std::string Now() const { return ModelDigest(*Open()).value(); }
  std::shared_ptr<const GgufFile> Open() const { return GgufFile::Open(file_.path()).value(); }
  timespec TimeOfChange() const {
    struct stat status {};
    EXPECT_EQ(::stat(file_.path().c_str(), &status), 0);
    return status.st_ctim;
  }

  const std::string bytes_ = BuildTinyModel({}).Build();
  TempFile file_{bytes_, "model.gguf"};
};

TEST_F(ModelDigestTest, StaysTheSameAsLongAsTheFileDoes) {
  const std::string digest = Now();
  EXPECT_EQ(digest.size(), 64U);
  EXPECT_EQ(Now(), digest);
}

// As `cp -p`, `rsync -t` or an unpacked layer of an image do.
TEST_F(ModelDigestTest, SeesAReplacementThatKeepsSizeHeaderAndTimeOfModification) {
  const std::string before = Now();
  const auto modified = std::filesystem::last_write_time(file_.path());
  std::string changed = bytes_;
  changed.back() ^= 1;
  const std::string other = file_.path() + ".new";
  {
    const TempFile source(changed, "source");
    std::filesystem::copy_file(source.path(), other);
  }
  std::filesystem::last_write_time(other, modified);
  std::filesystem::rename(other, file_.path());
  EXPECT_NE(Now(), before);
}

TEST_F(ModelDigestTest, SeesThatAnOpenFileWasWrittenTo) {
  const auto open = Open();
  const std::string before = ModelDigest(*open).value();
  const auto modified = std::filesystem::last_write_time(file_.path());
  std::string changed = bytes_;
  changed.back() ^= 1;
  // File systems keep time in ticks of some milliseconds.
  const timespec made = TimeOfChange();
  do {
    file_.Overwrite(changed);
  } while (TimeOfChange().tv_nsec == made.tv_nsec);
  std::filesystem::last_write_time(file_.path(), modified);
  EXPECT_NE(ModelDigest(*open).value(), before);
}

// The name that is kept must be of what is read, not of what has its path by now.
TEST_F(ModelDigestTest, IsOfTheOpenFileWhateverItsPathLeadsTo) {
  const auto open = Open();
  const std::string before = ModelDigest(*open).value();
  const std::string aside = file_.path() + ".old";
  std::filesystem::rename(file_.path(), aside);
  std::filesystem::copy_file(aside, file_.path());
  EXPECT_NE(Now(), before);
  std::filesystem::remove(file_.path());
  std::filesystem::rename(aside, file_.path());
}

}  // namespace
}  // namespace millrace::testing
